"""The split recipe: some examples choose, the others certify."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from fedcert.certificates.bounds import WEIGHT_DENOMINATOR
from fedcert.certificates.recipes.base import (
    Choice,
    LedgerEntry,
    Recipe,
    Span,
    register,
)
from fedcert.errors import CertificateError

__all__ = ["SplitRecipe"]


@register
@dataclass(frozen=True, kw_only=True)
class SplitRecipe(Recipe):
    """Choose on the first n1 examples and certify on the other n - n1, at all of delta.

    The test set bound of Langford (JMLR 6, 2005). It holds because the candidate is fixed
    when the first certifying example is read; a rule that looks at those earlier, even to
    drop hopeless candidates, breaks it.

    Parameters
    ----------
    choose_fraction : float
        n1 / n, strictly between 0 and 1; n1 is rounded to the nearest integer and halves
        go to the certifying side (default: 0.5).
    """

    kind: ClassVar[str] = "split"
    randomizes: ClassVar[bool] = True

    choose_fraction: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        fraction = self.choose_fraction
        if not isinstance(fraction, float) or not 0 < fraction < 1:
            raise CertificateError(
                f"choose_fraction must lie between 0 and 1, not {fraction!r}"
            )

    def choosing(self, n: int) -> Span:
        """Return the first n1 examples."""
        return Span(0, self._cut(n))

    def certifying(self, n: int) -> Span:
        """Return the examples after the first n1."""
        return Span(self._cut(n), n)

    def weight(self, choice: Choice | None = None) -> int:
        """Return 1: the chosen candidate is the only one that must be paid for."""
        return WEIGHT_DENOMINATOR

    def ledger(self, n: int) -> tuple[LedgerEntry, ...]:
        """Return two entries: choosing is free, certifying takes all of delta."""
        choosing, certifying = self.choosing(n).size, self.certifying(n).size
        return (
            LedgerEntry(
                f"choose among {self.candidates} candidates on {choosing} examples that do "
                f"not certify",
                0.0,
            ),
            LedgerEntry(
                f"bound the chosen candidate on the other {certifying} examples", self.delta
            ),
        )

    def statement(self, n: int) -> str:
        """Say how many examples chose and how many others certify."""
        return (
            f"{self.choosing(n).size} of the {n} examples chose the adapter among "
            f"{self.candidates} candidates, and the other {self.certifying(n).size}, which "
            f"had no part in the choice, certify it with all of delta, by exact inversion "
            f"of the binomial tail."
        )

    def _cut(self, n: int) -> int:
        # The decimal that the config shows, not the double behind it: 0.3 of 10 is 3.
        exact = Fraction(str(float(self.choose_fraction))) * n
        return math.ceil(exact - Fraction(1, 2))
