"""The hybrid recipe: some examples weight the candidates, the others choose and certify."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import ClassVar

import numpy as np

from fedcert.certificates.bounds import WEIGHT_DENOMINATOR, binomial_upper_bound, budget_of
from fedcert.certificates.counts import Counts, Selection
from fedcert.certificates.recipes.base import (
    Choice,
    Chosen,
    FirstStage,
    LedgerEntry,
    Session,
    register,
    require_number,
)
from fedcert.certificates.recipes.by_bound import lowest_bound
from fedcert.certificates.recipes.repeating import check_first_stage
from fedcert.certificates.recipes.split import SplitRecipe
from fedcert.errors import CertificateError

__all__ = ["HybridRecipe"]


@register
@dataclass(frozen=True, kw_only=True)
class HybridRecipe(SplitRecipe):
    """Weight all candidates on the first n1 examples; choose and certify on the others.

    Candidate j gets a weight proportional to exp(-beta e_j), with e_j its errors on the
    first n1 examples; the weights are frozen before the others are read. There the
    candidate with the lowest bound wins, at its own share of delta: the Occam's razor bound
    of Langford (JMLR 6, 2005) with data-dependent weights, as for the priors of Ambroladze,
    Parrado-Hernandez and Shawe-Taylor ("Tighter PAC-Bayes Bounds", NIPS 2006).

    Parameters
    ----------
    beta : float
        How fast the weights fall with the errors, not negative; 0 weights all candidates
        equally (default: 4.0).
    """

    kind: ClassVar[str] = "hybrid"

    beta: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("beta", self.beta)
        if self.beta < 0:
            raise CertificateError(f"beta must not be negative, not {self.beta}")

    def weights(self, profile: Sequence[int]) -> tuple[int, ...]:
        """Return the weight of a candidate with 0, 1, ..., n1 errors, over 2**53.

        Parameters
        ----------
        profile : sequence of int
            How many candidates made 0, 1, ..., n1 errors on the first n1 examples.

        Returns
        -------
        tuple of int
            As long as `profile`. Over all candidates they sum to at most 2**53.
        """
        fewest = next(level for level, number in enumerate(profile) if number)
        units = [
            _unit(self.beta, level - fewest) if number else 0
            for level, number in enumerate(profile)
        ]
        total = sum(unit * number for unit, number in zip(units, profile, strict=True))
        return tuple(unit * WEIGHT_DENOMINATOR // total for unit in units)

    def choice(self, counts: Counts, selection: Selection) -> Choice:
        """Return the choice with its first stage, from which its weight follows."""
        index = super().choice(counts, selection).index
        [errors] = counts.choosing
        return Choice(index=index, first_stage=FirstStage.of(errors, counts.chosen_on, index))

    @property
    def has_first_stage(self) -> bool:
        """True: the weights follow from it."""
        return True

    def check_repeated(self, choice: Choice, session: Session) -> tuple[Chosen, ...]:
        """Check the first stage, up to rounding: all candidates are paid for by it.

        Where the arithmetic here gives the candidate less weight, it is returned with that.
        """
        span, tolerance = self.choosing(session.n), self.margin_tolerance
        stage = check_first_stage(session, span, choice.index, _stage_of(choice), tolerance)
        here = replace(choice, first_stage=stage)
        if self.weight(here) >= self.weight(choice):
            return ()
        return (replace(session.candidate(choice.index), choice=here),)

    def weight(self, choice: Choice | None = None) -> int:
        """Return the weight that the chosen candidate got from the first stage."""
        stage = _stage_of(choice)
        if sum(stage.profile) != self.candidates or min(stage.profile, default=0) < 0:
            raise CertificateError(
                f"the first stage's profile must count all {self.candidates} candidates"
            )
        if not 0 <= stage.errors < len(stage.profile) or not stage.profile[stage.errors]:
            raise CertificateError(
                f"by the first stage's profile no candidate made {stage.errors} errors"
            )
        return self.weights(stage.profile)[stage.errors]

    def lowest_bound(self, n: int) -> float:
        """Return the bound at zero errors of a candidate that has all of the weight."""
        luckiest = self.luckiest().number
        return binomial_upper_bound(0, self.certifying(n).size, self.delta, luckiest)

    def check_choice(self, choice: Choice, n: int) -> None:
        """Check also that the first stage speaks about n1 examples."""
        stage = _stage_of(choice)
        super().check_choice(Choice(index=choice.index), n)
        if len(stage.profile) != self.choosing(n).size + 1:
            raise CertificateError(
                f"the first stage's profile must have an entry for each of 0 to "
                f"{self.choosing(n).size} errors, not {len(stage.profile)} entries"
            )

    def select(self, counts: Counts) -> Selection:
        """Weight by the choosing examples, then certify the lowest bound on the others."""
        budgets = np.zeros(counts.choosing.shape)
        for row, errors in enumerate(counts.choosing):
            profile = np.bincount(errors, minlength=counts.chosen_on + 1)
            weights = self.weights(profile.tolist())
            shares = [budget_of(self.delta, weight) if weight else 0.0 for weight in weights]
            budgets[row] = np.array(shares)[errors]
        return lowest_bound(counts, budgets)

    def ledger(self, n: int) -> tuple[LedgerEntry, ...]:
        """Return two entries: weighting is free, certifying takes all of delta."""
        choosing, certifying = self.choosing(n).size, self.certifying(n).size
        return (
            LedgerEntry(
                f"weight {self.candidates} candidates on {choosing} examples that do not "
                f"certify",
                0.0,
            ),
            LedgerEntry(
                f"bound all {self.candidates} candidates at once on the other {certifying} "
                f"examples, a share by its weight for each",
                self.delta,
            ),
        )

    def statement(self, n: int) -> str:
        """Say how many examples weighted and how many others chose and certify."""
        certifying = self.certifying(n).size
        return (
            f"{self.choosing(n).size} of the {n} examples gave each of {self.candidates} "
            f"candidates a weight that falls by exp({float(self.beta)}) with every error; the "
            f"other {certifying} chose the adapter, and the same {certifying} certify it; "
            f"every candidate is paid for with a share of delta by its weight, by exact "
            f"inversion of the binomial tail."
        )


def _stage_of(choice: Choice | None) -> FirstStage:
    if choice is None or choice.first_stage is None:
        raise CertificateError(
            "the weights of a recipe of kind 'hybrid' follow from its first stage, which is "
            "missing"
        )
    return choice.first_stage


@lru_cache(maxsize=65_536)
def _unit(beta: float, errors: int) -> int:
    # Decimal's exp is correctly rounded on every platform; libm's is not, and a verifier
    # has to find the very same integers.
    with localcontext() as context:
        context.prec = 50
        return int((-Decimal(str(beta)) * errors).exp() * WEIGHT_DENOMINATOR)
