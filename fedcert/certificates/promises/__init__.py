"""Promises: what a certificate says beside its bound; one kind a file."""

from fedcert.certificates.promises.abstention import AbstentionOutcome, AbstentionPromise
from fedcert.certificates.promises.asking import promises_asked, promises_from
from fedcert.certificates.promises.base import (
    Ground,
    Outcome,
    Promise,
    register_promise,
)
from fedcert.certificates.promises.evidence import Answers, Early, Evidence, Rival
from fedcert.certificates.promises.exits import ExitOutcome, ExitPromise
from fedcert.certificates.promises.gain import GainOutcome, GainPromise
from fedcert.certificates.promises.points import PointsOutcome, PointsPromise, points_of
from fedcert.certificates.promises.reference import ReferenceOutcome, ReferencePromise
from fedcert.certificates.promises.sets import SetsOutcome, SetsPromise
from fedcert.certificates.promises.shares import rounded_down, share_of, together
from fedcert.certificates.promises.simultaneous import SimultaneousOutcome, SimultaneousPromise

__all__ = [
    "AbstentionOutcome",
    "AbstentionPromise",
    "Answers",
    "Early",
    "Evidence",
    "ExitOutcome",
    "ExitPromise",
    "GainOutcome",
    "GainPromise",
    "Ground",
    "Outcome",
    "PointsOutcome",
    "PointsPromise",
    "Promise",
    "ReferenceOutcome",
    "ReferencePromise",
    "Rival",
    "SetsOutcome",
    "SetsPromise",
    "SimultaneousOutcome",
    "SimultaneousPromise",
    "points_of",
    "promises_asked",
    "promises_from",
    "register_promise",
    "rounded_down",
    "share_of",
    "together",
]
