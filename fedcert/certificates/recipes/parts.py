"""The small records that recipes are described with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Choice", "FirstStage", "LedgerEntry", "Span"]


class Span(NamedTuple):
    """Positions ``start <= i < stop`` in the permuted support set."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of examples in the span."""
        return self.stop - self.start

    def as_slice(self) -> slice:
        """Return the span as something to index an array with."""
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class LedgerEntry:
    """One use of delta.

    Parameters
    ----------
    purpose : str
        What it bought, in plain words.
    delta : float
        How much of the recipe's delta it took; 0 for what comes free.
    """

    purpose: str
    delta: float


@dataclass(frozen=True, kw_only=True)
class FirstStage:
    """What the choosing examples said, as far as a weight follows from it.

    Parameters
    ----------
    errors : int
        The chosen candidate's errors on the choosing examples.
    profile : tuple of int
        How many candidates made 0, 1, ..., n1 errors on the n1 choosing examples.
    """

    errors: int
    profile: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which hypothesis was chosen, for recipes whose weights differ.

    Parameters
    ----------
    index : int
        Its number, from 0 on.
    first_stage : FirstStage or None
        For recipes that weight the candidates by the choosing examples (default: None).
    """

    index: int
    first_stage: FirstStage | None = None
