"""The union recipe with weights that fall with the candidate's number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from fedcert.certificates.bounds import WEIGHT_DENOMINATOR, budget_of
from fedcert.certificates.counts import Counts, Selection
from fedcert.certificates.recipes.base import Choice, LedgerEntry, register
from fedcert.certificates.recipes.by_bound import lowest_bound
from fedcert.certificates.recipes.union import UnionRecipe
from fedcert.errors import CertificateError

__all__ = ["WeightedUnionRecipe"]


@register
@dataclass(frozen=True, kw_only=True)
class WeightedUnionRecipe(UnionRecipe):
    """Choose and certify on the same n examples, candidate j at delta/((j+1)(j+2)).

    The Occam's razor bound of Langford (JMLR 6, 2005); the weights of the first M
    candidates sum to M/(M+1). It pays less than `UnionRecipe` where a candidate with a
    low number is good, as if candidates are numbered by an earlier guess.
    """

    kind: ClassVar[str] = "weighted_union"

    def weight(self, choice: Choice | None = None) -> int:
        """Return 1/((j+1)(j+2)) for candidate j, rounded down."""
        index = self.index_of(choice)
        return WEIGHT_DENOMINATOR // ((index + 1) * (index + 2))

    def index_of(self, choice: Choice | None) -> int:
        """Return the chosen candidate's number, which the weight follows from.

        Raises
        ------
        CertificateError
            If there is no choice.
        """
        if choice is None:
            raise CertificateError(
                f"the weights of a recipe of kind {self.kind!r} differ: say which candidate"
            )
        return choice.index

    def budgets(self) -> npt.NDArray[np.float64]:
        """Return each candidate's share of delta, shape ``(M,)``."""
        choices = (Choice(index=index) for index in range(self.candidates))
        return np.array([budget_of(self.delta, self.weight(choice)) for choice in choices])

    def lowest_bound(self, n: int) -> float:
        """Return the bound of the first candidate at zero errors."""
        return self.bound(0, n, self.luckiest())

    def select(self, counts: Counts) -> Selection:
        """Certify the candidate with the lowest bound."""
        return lowest_bound(counts, np.broadcast_to(self.budgets(), counts.certifying.shape))

    def ledger(self, n: int) -> tuple[LedgerEntry, ...]:
        """Return one entry: all of delta, in shares that fall with the number."""
        purpose = (
            f"bound all {self.candidates} candidates at once on the same {n} examples, a "
            f"share of 1/((j+1)(j+2)) for candidate j"
        )
        return (LedgerEntry(purpose, self.delta),)

    def statement(self, n: int) -> str:
        """Say that the same examples chose and certified, at unequal weights."""
        return (
            f"All {n} examples chose the adapter among {self.candidates} candidates, and "
            f"the same {n} certify it; candidate j is paid for with the share "
            f"1/((j+1)(j+2)) of delta, by {self._bound_name}."
        )
