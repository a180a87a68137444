"""What a fault is: how to bring it about, and what is expected to come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["NOTHING", "Fault", "Outcome"]

NOTHING = "nothing"
"""What an outcome says when nothing was lost."""


@dataclass(frozen=True)
class Outcome:
    """What happened, found out by looking at what was left behind.

    Attributes
    ----------
    outcome : str
        In a few words, such as ``refused: the norm is too large``.
    lost : str
        Accepted work that has to be done again, or `NOTHING`.
    """

    outcome: str
    lost: str = NOTHING


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Attributes
    ----------
    name : str
        In a few words, such as ``the server is killed while it fits``.
    expected : Outcome
        What has to come of it; tests compare it with what comes of it.
    inject : callable
        Brings the fault about in an empty folder, and returns what happened.
    """

    name: str
    expected: Outcome
    inject: Callable[[Path], Outcome]
