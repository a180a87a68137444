"""The swap recipe: each part chooses for the other, both certify, the lower bound counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from fedcert.certificates.bounds import WEIGHT_DENOMINATOR, binomial_upper_bounds
from fedcert.certificates.counts import Counts, Selection, lowest
from fedcert.certificates.recipes.base import (
    Choice,
    Chosen,
    LedgerEntry,
    Session,
    Span,
    register,
    require_integer,
)
from fedcert.certificates.recipes.repeating import check_lowest
from fedcert.certificates.recipes.split import SplitRecipe

__all__ = ["SwapRecipe"]


@register
@dataclass(frozen=True, kw_only=True)
class SwapRecipe(SplitRecipe):
    """Let each part of the examples choose for the other, at half of delta each.

    One candidate is chosen on the first n1 examples and certified on the others, a second one
    is chosen on those and certified on the first n1. Each is a split at delta/2, so both
    bounds hold at once, and whichever is lower may be taken.

    Hypothesis j, of 2M, is candidate j as the first part's choice; M + j is candidate j as
    the second part's.
    """

    kind: ClassVar[str] = "swap"

    def __post_init__(self) -> None:
        super().__post_init__()
        # Numbers of hypotheses are written down, too.
        require_integer("candidates", self.candidates, 1, 2**52)

    @property
    def hypotheses(self) -> int:
        """2M."""
        return 2 * self.candidates

    def candidate_of(self, choice: Choice) -> int:
        """Return the candidate, whichever part chose it."""
        return choice.index % self.candidates

    def certifies_on(self, choice: Choice, n: int) -> Span:
        """Return the part that did not choose this hypothesis."""
        return self.certifying(n) if self._by_first(choice) else self.choosing(n)

    def hypothesis_risks(self, risks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the candidates' risks twice."""
        return np.concatenate([risks, risks], axis=-1)

    def weight(self, choice: Choice | None = None) -> int:
        """Return 1/2: of all hypotheses the two that were chosen must be paid for."""
        return WEIGHT_DENOMINATOR // 2

    def lowest_bound(self, n: int) -> float:
        """Return the bound at zero errors on the larger part."""
        largest = max(self.choosing(n).size, self.certifying(n).size)
        return self.bound(0, largest, self.luckiest())

    def select(self, counts: Counts) -> Selection:
        """Choose on each part, certify on the other, and take the lower bound."""
        first = lowest(counts.choosing, counts.losses)
        second = lowest(counts.certifying, counts.certifying_losses)
        episodes = np.arange(len(first))
        errors = np.stack(
            [counts.certifying[episodes, first], counts.choosing[episodes, second]]
        )
        budgets = np.full(len(episodes), self.budget())
        trials = (counts.certified_on, counts.chosen_on)
        bounds = np.stack(
            [
                binomial_upper_bounds(made, size, budgets, counts.numbers)
                for made, size in zip(errors, trials, strict=True)
            ]
        )
        part = bounds.argmin(axis=0)
        return Selection(
            bounds=bounds[part, episodes],
            errors=errors[part, episodes].astype(np.float64),
            index=np.where(part == 0, first, self.candidates + second),
        )

    def check_repeated(self, choice: Choice, session: Session) -> tuple[Chosen, ...]:
        """Check that the part chose this candidate; which part's it is was paid for."""
        first = self._by_first(choice)
        span = self.choosing(session.n) if first else self.certifying(session.n)
        return check_lowest(session, span, self.candidate_of(choice), self.margin_tolerance)

    def ledger(self, n: int) -> tuple[LedgerEntry, ...]:
        """Return three entries: choosing is free, each part's certificate takes a half."""
        first, second = self.choosing(n).size, self.certifying(n).size
        return (
            LedgerEntry(
                f"choose among {self.candidates} candidates on {first} examples, and on the "
                f"other {second}, each for the other part to certify",
                0.0,
            ),
            LedgerEntry(f"bound the first part's choice on {second} examples", self.delta / 2),
            LedgerEntry(f"bound the second part's choice on {first} examples", self.delta / 2),
        )

    def statement(self, n: int) -> str:
        """Say that each part chose for the other, and that the lower bound was taken."""
        return (
            f"{self.choosing(n).size} of the {n} examples chose one adapter among "
            f"{self.candidates} candidates, and the other {self.certifying(n).size} chose "
            f"another; each is certified with half of delta on the examples that had no part "
            f"in choosing it, by exact inversion of the binomial tail, and this is the one "
            f"with the lower bound."
        )

    def _by_first(self, choice: Choice) -> bool:
        return choice.index < self.candidates
