"""Validity, played out: certificates of candidates whose risk is exactly known.

Honest recipes must be false at most a share delta of the time; mutants that cheat must be
caught, at the same risks and with the same test, or the test would have no teeth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom

from fedcert.certificates import (
    WEIGHT_DENOMINATOR,
    Recipe,
    Span,
    SplitRecipe,
    SteelRecipe,
    UnionRecipe,
    budget_of,
)

EPISODES = 10_000
BATCH = 2_000
N = 40
DELTA = 0.05
SIGNIFICANCE = 1e-3

Risks = npt.NDArray[np.float64]


def violations(recipe: Recipe, risks: Risks, *, seed: int) -> int:
    """Count false certificates over `EPISODES` support sets; risks has shape (M,)."""
    rng = np.random.default_rng(seed)
    choosing = recipe.choosing(N).as_slice()
    certifying = recipe.certifying(N)
    bounds = np.array([recipe.bound(k, certifying.size) for k in range(certifying.size + 1)])
    false = 0
    for _ in range(EPISODES // BATCH):
        wrong = rng.random((BATCH, len(risks), N)) < risks[:, None]
        chosen = wrong[:, :, choosing].sum(axis=2).argmin(axis=1)
        errors = wrong[np.arange(BATCH), chosen][:, certifying.as_slice()].sum(axis=1)
        false += int((risks[chosen] > bounds[errors]).sum())
    return false


def p_value(false: int) -> float:
    """Probability of so many false certificates if each is false with probability DELTA."""
    return float(binom.sf(false - 1, EPISODES, DELTA))


def just_above(recipe: Recipe, errors: int) -> float:
    """Return the risk at which a certificate from up to `errors` errors is just false.

    This is the hardest case: the probability of so few errors is just below the budget.
    """
    return recipe.bound(errors, recipe.certifying(N).size) + 1e-9


def tied(recipe: Recipe, risk: float) -> Risks:
    return np.full(recipe.candidates, risk)


UNION = UnionRecipe(candidates=20, delta=DELTA)
SINGLE = UnionRecipe(candidates=1, delta=DELTA)
STEEL = SteelRecipe(candidates=20, delta=DELTA)
SPLIT = SplitRecipe(candidates=20, delta=DELTA)
SKEWED = SplitRecipe(candidates=20, delta=DELTA, choose_fraction=0.25)
HONEST = [UNION, SINGLE, STEEL, SPLIT, SKEWED]


@pytest.mark.parametrize("errors", [0, 2, 6, 12])
@pytest.mark.parametrize("recipe", HONEST, ids=lambda r: f"{r.kind}-{r.candidates}")
def test_tied_candidates_of_the_hardest_risk(recipe: Recipe, errors: int) -> None:
    false = violations(recipe, tied(recipe, just_above(recipe, errors)), seed=errors)
    assert p_value(false) >= SIGNIFICANCE


@pytest.mark.parametrize("recipe", HONEST, ids=lambda r: f"{r.kind}-{r.candidates}")
def test_candidates_of_many_risks(recipe: Recipe) -> None:
    risks = np.linspace(0.15, 0.6, recipe.candidates)
    assert p_value(violations(recipe, risks, seed=1)) >= SIGNIFICANCE


@pytest.mark.parametrize("recipe", [UNION, SINGLE, SPLIT], ids=lambda r: r.kind)
def test_the_hardest_risk_is_hard(recipe: Recipe) -> None:
    # Otherwise honest recipes would pass for want of a challenge.
    false = violations(recipe, tied(recipe, just_above(recipe, 0)), seed=2)
    assert false / EPISODES > 0.8 * DELTA


@dataclass(frozen=True, kw_only=True)
class NoUnionTerm(UnionRecipe):
    def weight(self) -> int:
        return WEIGHT_DENOMINATOR


@dataclass(frozen=True, kw_only=True)
class DoubleWeight(UnionRecipe):
    def weight(self) -> int:
        return 2 * super().weight()


@dataclass(frozen=True, kw_only=True)
class DoubleDelta(UnionRecipe):
    @property
    def budget(self) -> float:
        return budget_of(2 * self.delta, self.weight())


@dataclass(frozen=True, kw_only=True)
class OneErrorForgotten(UnionRecipe):
    def bound(self, errors: int, trials: int) -> float:
        return super().bound(max(errors - 1, 0), trials)


@dataclass(frozen=True, kw_only=True)
class SteelWithoutUnionTerm(SteelRecipe):
    def weight(self) -> int:
        return WEIGHT_DENOMINATOR


@dataclass(frozen=True, kw_only=True)
class SplitDoubleDelta(SplitRecipe):
    @property
    def budget(self) -> float:
        return budget_of(2 * self.delta, self.weight())


@dataclass(frozen=True, kw_only=True)
class SplitThatCertifiesOnAll(SplitRecipe):
    def certifying(self, n: int) -> Span:
        return Span(0, n)


@dataclass(frozen=True, kw_only=True)
class SplitThatPeeks(SplitRecipe):
    def choosing(self, n: int) -> Span:
        return Span(0, n)


# Each with the number of errors at whose bound the cheating shows: Hoeffding is so loose
# that near the ends even a cheat seldom errs.
MUTANTS: list[tuple[Recipe, int]] = [
    (NoUnionTerm(candidates=20, delta=DELTA), 2),
    (DoubleWeight(candidates=20, delta=DELTA), 2),
    (DoubleDelta(candidates=20, delta=DELTA), 2),
    (DoubleDelta(candidates=1, delta=DELTA), 2),
    (OneErrorForgotten(candidates=20, delta=DELTA), 2),
    (SteelWithoutUnionTerm(candidates=20, delta=DELTA), 12),
    (SplitDoubleDelta(candidates=20, delta=DELTA), 2),
    (SplitThatCertifiesOnAll(candidates=20, delta=DELTA), 2),
    (SplitThatPeeks(candidates=20, delta=DELTA), 2),
]


@pytest.mark.parametrize(
    ("mutant", "errors"),
    MUTANTS,
    ids=[f"{type(mutant).__name__}-{mutant.candidates}" for mutant, _ in MUTANTS],
)
def test_mutants_are_caught(mutant: Recipe, errors: int) -> None:
    false = violations(mutant, tied(mutant, just_above(mutant, errors)), seed=3)
    assert p_value(false) < SIGNIFICANCE / 1000
