"""Operating points: certificates at several depths and precisions hold all at once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Self

from fedcert.canonical import digest_json
from fedcert.certificates.bounds import confidence
from fedcert.certificates.promises.base import Ground, Outcome, Promise, register_promise
from fedcert.certificates.promises.evidence import Evidence
from fedcert.errors import CertificateError

__all__ = ["PointsOutcome", "PointsPromise", "points_of"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")


@dataclass(frozen=True, kw_only=True)
class PointsOutcome(Outcome):
    """Nothing is counted: delta was divided among the points beforehand."""

    kind: ClassVar[str] = "points"

    def row(self) -> str:
        """Return the outcome in a few words."""
        return "holds together with those of the other operating points"


@register_promise
@dataclass(frozen=True, kw_only=True)
class PointsPromise(Promise[PointsOutcome]):
    """Say that the certificates of a client's operating points hold all at once.

    A point is a depth or a precision of the base model, with a bundle and adapters of its own.
    One support set certifies at all P of them, each at a P-th of delta (Bonferroni), so that
    a device may pick whichever it likes when it has seen all the bounds. The points are named
    in every bundle, before any example is seen. It takes no share of its own.

    Parameters
    ----------
    points : tuple of str
        Names of all P points, from two on, in their order.
    point : str
        The one that this is.
    delta : float
        Probability that any of the P certificates is false, which all of them share.
    """

    kind: ClassVar[str] = "points"
    outcome: ClassVar[type[Outcome]] = PointsOutcome

    share: float = 0.0
    points: tuple[str, ...]
    point: str
    delta: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.points, list | tuple):
            raise CertificateError(f"points must be an array of names, not {self.points!r}")
        object.__setattr__(self, "points", tuple(self.points))  # the saved form is an array
        for name in self.points:
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise CertificateError(
                    f"{name!r} names no operating point: up to 32 letters, digits, dots, "
                    "hyphens and underscores do, such as 'depth-3' or 'int8'"
                )
        if len(set(self.points)) < max(len(self.points), 2):
            raise CertificateError("operating points are two or more, each with its own name")
        if self.point not in self.points:
            raise CertificateError(
                f"the operating point {self.point!r} is none of {', '.join(self.points)}"
            )
        if not isinstance(self.delta, float) or not 0 < self.delta < 1:
            raise CertificateError(f"delta must lie between 0 and 1, not {self.delta!r}")

    @classmethod
    def asked(cls, argument: str | None, *, share: float) -> Self:
        """Refuse: it divides delta, and has settings of its own."""
        raise CertificateError(
            "operating points have settings of their own: certificate.points, all their names, "
            "and certificate.point"
        )

    @property
    def family(self) -> str:
        """Digest of what all points of a family have in common."""
        return digest_json({"points": list(self.points), "delta": self.delta})

    def check_delta(self, total: float) -> None:
        """Raise `CertificateError` if the deltas of P certificates exceed that of all."""
        if len(self.points) * total > self.delta * (1 + 1e-9):
            raise CertificateError(
                f"certificates at {len(self.points)} operating points with delta {total:g} may "
                f"be false with more than {self.delta:g} in all"
            )

    def count(self, evidence: Evidence, chosen: None, ground: Ground) -> PointsOutcome:
        """Return that nothing is counted.

        Parameters
        ----------
        evidence : Evidence
            It is not looked at.
        chosen : None
            Nothing is chosen.
        ground : Ground
            What the promise stands on.
        """
        return PointsOutcome()

    def bound(self, outcome: PointsOutcome, ground: Ground) -> PointsOutcome:
        """Return the outcome: there is no bound of its own.

        Parameters
        ----------
        outcome : PointsOutcome
            It holds nothing.
        ground : Ground
            What the promise stands on.
        """
        return outcome

    def asked_for(self) -> str:
        """Name the points."""
        return f"true at the points {', '.join(self.points)} at once"

    def purpose(self) -> str:
        """Say what was divided."""
        return f"hold together with those of the operating points {', '.join(self.points)}"

    def words(self, outcome: PointsOutcome, ground: Ground) -> str:
        """Say that all of them hold at once, and so does the one that is picked.

        Parameters
        ----------
        outcome : PointsOutcome
            It holds nothing.
        ground : Ground
            What the promise stands on.
        """
        return (
            f"This is the operating point {self.point!r} of {', '.join(self.points)}, named "
            f"before any example was seen. With probability at least {_sure(self.delta)} "
            f"the client's certificates from these examples at all {len(self.points)} points "
            f"are true at once, each at an equal share of {self.delta:g}: whichever is used, "
            f"and however it was picked, its bound holds."
        )

    def to_config(self) -> dict[str, Any]:
        """Return the JSON object from which `promises_from` makes an equal promise."""
        return super().to_config() | {"points": list(self.points)}


def _sure(delta: float) -> str:
    """Return ``1 - delta`` in six digits, as certificates have said, if that is no more."""
    brief, whole = f"{1 - delta:g}", confidence(delta)
    return brief if Decimal(brief) <= Decimal(whole) else whole


def points_of(promises: Iterable[Promise[Any]]) -> PointsPromise | None:
    """Return which operating point promises speak of; None if they speak of none."""
    return next((each for each in promises if isinstance(each, PointsPromise)), None)
