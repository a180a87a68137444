"""The default recipe: the prior's center, certified on all examples, chosen on none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedcert.certificates.bounds import WEIGHT_DENOMINATOR
from fedcert.certificates.recipes.base import (
    Choice,
    Chosen,
    LedgerEntry,
    Recipe,
    Session,
    Span,
    register,
    require_integer,
)

__all__ = ["DefaultRecipe"]


@register
@dataclass(frozen=True, kw_only=True)
class DefaultRecipe(Recipe):
    """Certify the center of the prior on all n examples, at all of delta.

    A union of one: the test set bound of Langford (JMLR 6, 2005) for an adapter that the bundle
    fixes, so that nothing is searched and nothing is paid for. It is what a client has before
    it spends a label, and with few labels often the best to have.

    Parameters
    ----------
    candidates : int
        1.
    """

    kind: ClassVar[str] = "default"
    randomizes: ClassVar[bool] = True
    centered: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("candidates", self.candidates, 1, 1)

    def choosing(self, n: int) -> Span:
        """Return no example."""
        return Span(0, 0)

    def certifying(self, n: int) -> Span:
        """Return all n examples."""
        return Span(0, n)

    def choose(self, session: Session) -> Chosen:
        """Take the center, without a look at the examples."""
        return Chosen(Choice(index=0), session.center())

    def selects_from_counts(self) -> bool:
        """Return true: whatever the counts are, they leave one hypothesis to select."""
        return True

    def pays_for_choosing(self, n: int) -> bool:
        """Return true: nothing is chosen, so there is nothing to pay for or to repeat."""
        return True

    def weight(self, choice: Choice | None = None) -> int:
        """Return 1: there is one hypothesis."""
        return WEIGHT_DENOMINATOR

    def ledger(self, n: int) -> tuple[LedgerEntry, ...]:
        """Return one entry: all of delta for the center."""
        return (LedgerEntry(f"bound the center of the prior on all {n} examples", self.delta),)

    def statement(self, n: int) -> str:
        """Say that no example chose."""
        return (
            f"The adapter is the center of the prior, 1 hypothesis that the bundle fixes and "
            f"no example chose; all {n} examples certify it with all of delta, by exact "
            f"inversion of the binomial tail."
        )
