"""The union recipe: all examples choose, the same examples certify, all M are paid for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedcert.certificates.bounds import uniform_weight
from fedcert.certificates.recipes.base import Choice, LedgerEntry, Recipe, Span, register

__all__ = ["UnionRecipe"]


@register
@dataclass(frozen=True, kw_only=True)
class UnionRecipe(Recipe):
    """Choose and certify on the same n examples, at delta/M a candidate.

    STEEL (arXiv 2502.06970) with the exact binomial bound in place of Hoeffding's: the
    Occam's razor bound of Langford (JMLR 6, 2005) with the weight 1/M. It holds whatever
    rule chooses the candidate, because it holds for all of them at once.
    """

    kind: ClassVar[str] = "union"
    randomizes: ClassVar[bool] = True

    def choosing(self, n: int) -> Span:
        """Return all n examples."""
        return Span(0, n)

    def certifying(self, n: int) -> Span:
        """Return all n examples."""
        return Span(0, n)

    def weight(self, choice: Choice | None = None) -> int:
        """Return 1/M, rounded down."""
        return uniform_weight(self.candidates)

    def ledger(self, n: int) -> tuple[LedgerEntry, ...]:
        """Return one entry: all of delta, shared equally by the candidates."""
        purpose = (
            f"bound all {self.candidates} candidates at once on the same {n} examples, "
            f"an equal share for each"
        )
        return (LedgerEntry(purpose, self.delta),)

    def statement(self, n: int) -> str:
        """Say that the same examples chose and certified."""
        return (
            f"All {n} examples chose the adapter among {self.candidates} candidates, and "
            f"the same {n} certify it; every candidate is paid for with an equal share of "
            f"delta, by {self._bound_name}."
        )

    @property
    def _bound_name(self) -> str:
        return "exact inversion of the binomial tail"
