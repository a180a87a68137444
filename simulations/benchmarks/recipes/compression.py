"""The compression recipe: a trained adapter, paid for by the bits that name it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from fedcert.certificates.counts import Counts, Selection, lowest
from fedcert.certificates.recipes.base import (
    Choice,
    LedgerEntry,
    Recipe,
    Span,
    Subject,
    register,
    require_integer,
)

__all__ = ["CompressionRecipe"]


@register
@dataclass(frozen=True, kw_only=True)
class CompressionRecipe(Recipe):
    """Train on all n examples, round to a code fixed beforehand, and pay 2^-bits.

    Occam's razor over all adapters that the code can name: Lotfi et al., "PAC-Bayes
    Compression Bounds So Tight That They Can Explain Generalization" (NeurIPS 2022), here
    with a fixed code of `bits_per_coordinate` bits for each of `dimension` coordinates and
    the exact binomial bound. It stands for gradient training without a prior, and is a
    reference: the pipeline exports no adapter of this kind.

    Parameters
    ----------
    candidates : int
        Number of rounded adapters, such as restarts, of which the best is certified; they
        cost nothing, as the whole code is paid for.
    dimension : int
        Number d of trained coordinates.
    bits_per_coordinate : int
        Bits for each, from 1 to 64.
    """

    kind: ClassVar[str] = "compression"
    certifies: ClassVar[Subject] = "reference"
    refines: ClassVar[bool] = True

    dimension: int
    bits_per_coordinate: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("dimension", self.dimension, 1, 2**40)
        require_integer("bits_per_coordinate", self.bits_per_coordinate, 1, 64)

    @property
    def bits(self) -> int:
        """Length of an adapter's name."""
        return self.dimension * self.bits_per_coordinate

    @property
    def universe(self) -> int:
        """How many adapters the code can name."""
        return int(2**self.bits)

    def choosing(self, n: int) -> Span:
        """Return all n examples."""
        return Span(0, n)

    def certifying(self, n: int) -> Span:
        """Return all n examples."""
        return Span(0, n)

    def weight(self, choice: Choice | None = None) -> int:
        """Return 2^-bits over 2**53, which is 0 from 54 bits on; `budget` is exact."""
        return 2 ** (53 - self.bits) if self.bits <= 53 else 0

    def budget(self, choice: Choice | None = None) -> float:
        """Return ``delta * 2**-bits``; too small a number to represent becomes 0."""
        return math.ldexp(self.delta, -self.bits) if self.bits < 900 else 0.0

    def select(self, counts: Counts) -> Selection:
        """Certify the rounded adapter with the fewest errors."""
        return self._selected(lowest(counts.certifying, counts.losses), counts)

    def ledger(self, n: int) -> tuple[LedgerEntry, ...]:
        """Return one entry: all of delta, for all names of that length."""
        purpose = f"bound all adapters with a name of {self.bits} bits at once on {n} examples"
        return (LedgerEntry(purpose, self.delta),)

    def statement(self, n: int) -> str:
        """Say how long the trained adapter's name is."""
        return (
            f"All {n} examples trained the adapter ({self.candidates} were compared), "
            f"rounded to {self.bits} bits, and the same {n} certify it; every adapter that "
            f"{self.bits} bits can name is paid for, by exact inversion of the binomial tail."
        )
