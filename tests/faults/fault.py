"""What a fault is: how to bring it about, and what is expected to come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["NOTHING", "Fault", "Outcome", "Recorder", "bring_about"]

Recorder = Callable[[str, object], None]
"""The fixture ``record_property``: what it is told stands in pytest's JUnit report."""

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


def bring_about(fault: Fault, folder: Path, record: Recorder) -> None:
    """Bring a fault about, record what came of it, and assert that it was expected.

    Parameters
    ----------
    fault : Fault
        What goes wrong.
    folder : Path
        An empty folder.
    record : callable
        Gets ``fault``, ``expected``, ``outcome`` and ``lost``, from which
        ``make bench-deployment`` renders docs/reliability.md.
    """
    record("fault", fault.name)
    record("expected", fault.expected.outcome)
    found = fault.inject(folder)
    record("outcome", found.outcome)
    record("lost", found.lost)
    assert found == fault.expected
