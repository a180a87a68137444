"""What came of a warm start: a base model, and how it came about."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedcert.runs.failures import Failure
from fedcert.strategies.correspondence import Traffic

__all__ = ["Warmed"]


@dataclass(frozen=True)
class Warmed:
    """What came of a warm start.

    Attributes
    ----------
    folder : Path
        The new base model.
    before, digest : str
        Digests of the base model before and after.
    clients : frozenset of str
        Who trained the trunk.
    planners : frozenset of str
        Who was kept out of it to plan.
    rounds : list of dict
        What each round was like.
    failures : list of Failure
        Who failed, when and why.
    traffic : Traffic
        Bytes up and down in this process; rounds of an earlier one are in `rounds`.
    privacy : dict or None
        What is promised about the clients that trained the trunk.
    """

    folder: Path
    before: str
    digest: str
    clients: frozenset[str]
    planners: frozenset[str]
    rounds: list[dict[str, Any]]
    failures: list[Failure] = field(default_factory=list)
    traffic: Traffic = field(default_factory=Traffic)
    privacy: dict[str, Any] | None = None

    def to_config(self) -> dict[str, Any]:
        """Return what a report says of it: a JSON object."""
        return {
            "before": self.before,
            "after": self.digest,
            "rounds": self.rounds,
            "clients": len(self.clients),
            "bytes_up": sum(row["bytes_up"] for row in self.rounds),
            "bytes_down": sum(row["bytes_down"] for row in self.rounds),
            "privacy": self.privacy,
        }
