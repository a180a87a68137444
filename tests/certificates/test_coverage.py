"""Validity, played out: certificates of candidates whose risk is exactly known.

Honest recipes must be false at most a share delta of the time; mutants that cheat must be
caught, in the same cases and with the same test, or the test would have no teeth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from fedcert.certificates import (
    WEIGHT_DENOMINATOR,
    Choice,
    DefaultRecipe,
    HybridRecipe,
    MixedUnionRecipe,
    PosteriorSplitRecipe,
    Recipe,
    Span,
    SplitRecipe,
    SteelRecipe,
    SwapRecipe,
    UnionRecipe,
    WeightedUnionRecipe,
    binomial_upper_bound,
    budget_of,
)
from fedcert.certificates.counts import Counts, Selection
from fedcert.simulations.benchmarks import coverage
from fedcert.simulations.benchmarks import episodes as harness
from fedcert.simulations.benchmarks.conditioning import INPUTS, Inputs, false_structures
from fedcert.simulations.benchmarks.coverage import RECIPES
from fedcert.simulations.benchmarks.episodes import CASES, Case, excess, false_certificates
from fedcert.simulations.benchmarks.recipes import GibbsRecipe
from fedcert.simulations.benchmarks.sampling import WORLDS

EPISODES = 2_000
N = harness.SIZE
TERMS: dict[str, Any] = {"candidates": 20, "delta": coverage.DELTA}
SIGNIFICANCE = 1e-4
TIED_AT_0, TIED_AT_2 = CASES[:2]


def p_value(recipe: Recipe, case: Case, *, episodes: int = EPISODES) -> float:
    """Probability of so many false certificates if each is false with probability delta."""
    false = false_certificates(recipe, case, episodes, seed=1)
    return excess(int(false.sum()), episodes, recipe.delta)


@pytest.mark.parametrize(
    ("recipe", "case"),
    list(product(RECIPES, CASES)),
    ids=lambda value: value.name if isinstance(value, Case) else value.kind,
)
def test_no_more_than_delta_are_false(recipe: Recipe, case: Case) -> None:
    assert p_value(recipe, case) >= SIGNIFICANCE


@pytest.mark.parametrize("kind", [SplitRecipe, PosteriorSplitRecipe, HybridRecipe])
@pytest.mark.parametrize("n1", [1, 2, 5, 13, 27, 35, 38, 39])
def test_any_number_of_examples_may_choose(kind: type[SplitRecipe], n1: int) -> None:
    assert p_value(kind(**TERMS, choose_fraction=n1 / N), TIED_AT_0) >= SIGNIFICANCE


@pytest.mark.parametrize(
    "recipe",
    [
        DefaultRecipe(candidates=1, delta=coverage.DELTA),
        UnionRecipe(**TERMS),
        MixedUnionRecipe(**TERMS, constants=10),
        SplitRecipe(**TERMS),
        SwapRecipe(candidates=1, delta=coverage.DELTA),
        PosteriorSplitRecipe(**TERMS),
        PosteriorSplitRecipe(**TERMS, finalists=3),
    ],
    ids=lambda recipe: recipe.kind,
)
def test_the_hardest_case_is_hard(recipe: Recipe) -> None:
    # Otherwise honest recipes would pass for want of a challenge.
    false = false_certificates(recipe, TIED_AT_0, 10_000, seed=2)
    assert false.mean() > 0.8 * recipe.delta


def test_the_benchmark_plays_every_recipe_in_every_case() -> None:
    rows = list(coverage.coverage(50))
    worlds = {world.name for world in WORLDS}
    worlds |= {inputs.name for inputs in INPUTS}
    assert {row["case"] for row in rows} == {case.name for case in CASES} | worlds
    assert len({row["recipe"] for row in rows}) >= len(RECIPES)
    assert all(set(row) == set(rows[0]) and row["episodes"] == 50 for row in rows)
    assert rows == list(coverage.coverage(50))


LEARNED: dict[str, Any] = {
    "candidates": 1,
    "delta": coverage.DELTA,
    "refinement": "learned",
}


@pytest.mark.parametrize("inputs", INPUTS, ids=lambda inputs: str(inputs.frequent))
def test_a_structure_may_remember_what_it_was_read_off(inputs: Inputs) -> None:
    """It may be read off choosing inputs; off certifying ones it is good on these alone."""
    codebook = LEARNED | {"candidates": 4, "finalists": 4}
    for terms in (LEARNED, codebook):
        for recipe, honest in ((PosteriorSplitRecipe, True), (RefinedOnAll, False)):
            false = false_structures(recipe(**terms), inputs, 5_000, seed=3)
            found = excess(int(false.sum()), 5_000, coverage.DELTA)
            assert found >= SIGNIFICANCE if honest else found < SIGNIFICANCE / 1000


def test_shared_examples_leave_every_risk_as_it_is() -> None:
    # The drawing itself: known risks are exact only if this holds.
    risks = np.array([0.1, 0.4, 0.8])
    recipe = UnionRecipe(candidates=3, delta=0.05)
    wrong = harness._drawn(risks, 0.7, 5_000, np.random.default_rng(0))
    counts = harness._counted(recipe, wrong)
    spread = np.sqrt(risks * (1 - risks) / (5_000 * N))
    assert (np.abs(counts.choosing.mean(axis=0) / N - risks) < 4 * spread).all()


def test_the_risk_of_a_vote_is_summed_exactly() -> None:
    risks, posterior = np.array([0.1, 0.3, 0.6]), np.array([[0.5, 0.2, 0.3]])
    selection = Selection(bounds=np.ones(1), errors=np.zeros(1), posterior=posterior)
    # Alone: wrong if candidate 0 is, or if both others are. Together: wrong below .3.
    alone, together = 0.1 + 0.9 * 0.3 * 0.6, 0.3
    for shared in (0.0, 0.4, 1.0):
        expected = shared * together + (1 - shared) * alone
        found = harness._vote_risks(selection, risks, shared)
        assert found == pytest.approx([expected])


@dataclass(frozen=True, kw_only=True)
class NoUnionTerm(UnionRecipe):
    def weight(self, choice: Choice | None = None) -> int:
        return WEIGHT_DENOMINATOR


@dataclass(frozen=True, kw_only=True)
class DoubleWeight(UnionRecipe):
    def weight(self, choice: Choice | None = None) -> int:
        return 2 * super().weight()


@dataclass(frozen=True, kw_only=True)
class DoubleDelta(UnionRecipe):
    def budget(self, choice: Choice | None = None) -> float:
        return budget_of(2 * self.delta, self.weight())


@dataclass(frozen=True, kw_only=True)
class OneErrorForgotten(UnionRecipe):
    def bound(self, errors: int, trials: int, choice: Choice | None = None) -> float:
        return super().bound(max(errors - 1, 0), trials)


@dataclass(frozen=True, kw_only=True)
class DefaultThatLooksAround(DefaultRecipe):
    """Hands out whichever of 20 adapters does best, as if it had been the center."""

    @property
    def universe(self) -> int:
        return 20

    def choosing(self, n: int) -> Span:
        return Span(0, n)


@dataclass(frozen=True, kw_only=True)
class DefaultAtDoubleDelta(DefaultRecipe):
    def budget(self, choice: Choice | None = None) -> float:
        return budget_of(2 * self.delta, self.weight())


@dataclass(frozen=True, kw_only=True)
class SteelWithoutUnionTerm(SteelRecipe):
    def weight(self, choice: Choice | None = None) -> int:
        return WEIGHT_DENOMINATOR


@dataclass(frozen=True, kw_only=True)
class WeightsThatDoNotFall(WeightedUnionRecipe):
    def weight(self, choice: Choice | None = None) -> int:
        return WEIGHT_DENOMINATOR // 2


@dataclass(frozen=True, kw_only=True)
class ConstantsForFree(MixedUnionRecipe):
    def weight(self, choice: Choice | None = None) -> int:
        constant = choice is not None and choice.index < self.constants
        return WEIGHT_DENOMINATOR // 2 if constant else super().weight(choice)


@dataclass(frozen=True, kw_only=True)
class DrawsAtTheConstantsShare(MixedUnionRecipe):
    def weight(self, choice: Choice | None = None) -> int:
        return super().weight(Choice(index=0))


@dataclass(frozen=True, kw_only=True)
class SplitDoubleDelta(SplitRecipe):
    def budget(self, choice: Choice | None = None) -> float:
        return budget_of(2 * self.delta, self.weight())


@dataclass(frozen=True, kw_only=True)
class SplitThatCertifiesOnAll(SplitRecipe):
    def certifying(self, n: int) -> Span:
        return Span(0, n)


@dataclass(frozen=True, kw_only=True)
class SplitThatPeeks(SplitRecipe):
    def choosing(self, n: int) -> Span:
        return Span(0, n)


@dataclass(frozen=True, kw_only=True)
class SwapAtAllOfDeltaTwice(SwapRecipe):
    def weight(self, choice: Choice | None = None) -> int:
        return WEIGHT_DENOMINATOR


@dataclass(frozen=True, kw_only=True)
class SwapThatForgetsToSwap(SwapRecipe):
    def select(self, counts: Counts) -> Selection:
        # Each part certifies what it chose itself.
        parts = (counts.choosing, counts.certifying)
        fewest = np.stack([errors.min(axis=1) for errors in parts])
        best = np.stack([errors.argmin(axis=1) for errors in parts])
        part, episodes = fewest.argmin(axis=0), np.arange(len(counts.choosing))
        errors = fewest[part, episodes]
        bounds = [self.bound(int(k), counts.certified_on) for k in errors]
        return Selection(
            bounds=np.array(bounds),
            errors=errors.astype(np.float64),
            index=best[part, episodes] + part * self.candidates,
        )


@dataclass(frozen=True, kw_only=True)
class FinalistsForFree(PosteriorSplitRecipe):
    def weight(self, choice: Choice | None = None) -> int:
        return WEIGHT_DENOMINATOR


@dataclass(frozen=True, kw_only=True)
class RefinedOnAll(PosteriorSplitRecipe):
    def choosing(self, n: int) -> Span:
        return Span(0, n)


@dataclass(frozen=True, kw_only=True)
class WeightsFromCertifyingExamples(HybridRecipe):
    def select(self, counts: Counts) -> Selection:
        peeked = counts.choosing + counts.certifying
        return super().select(
            replace(counts, choosing=peeked, chosen_on=counts.chosen_on + counts.certified_on)
        )


@dataclass(frozen=True, kw_only=True)
class WeightsForFree(HybridRecipe):
    def weights(self, profile: Any) -> tuple[int, ...]:
        return tuple(WEIGHT_DENOMINATOR for _ in profile)


@dataclass(frozen=True, kw_only=True)
class DoubleWeights(HybridRecipe):
    def weights(self, profile: Any) -> tuple[int, ...]:
        # At beta = 0 every weight is 1/20 and can be doubled.
        return tuple(2 * weight for weight in super().weights(profile))


@dataclass(frozen=True, kw_only=True)
class GibbsWithoutItsPrice(GibbsRecipe):
    def select(self, counts: Counts) -> Selection:
        honest = super().select(counts)
        return replace(honest, bounds=honest.errors / counts.certified_on + 0.02)


@dataclass(frozen=True, kw_only=True)
class EveryAttemptAtFullDelta(UnionRecipe):
    def with_delta(self, delta: float) -> EveryAttemptAtFullDelta:
        return self


def just_above(errors: int, trials: int, share: float) -> Case:
    """Return a case just above the bound of a candidate with that share of delta."""
    risk = binomial_upper_bound(errors, trials, share * coverage.DELTA) + 1e-9
    return Case("tied", lambda _recipe, count: np.full(count, risk))


MUTANTS: list[tuple[Recipe, Case]] = [
    (NoUnionTerm(**TERMS), TIED_AT_2),
    (DoubleWeight(**TERMS), TIED_AT_2),
    (DoubleDelta(**TERMS), TIED_AT_2),
    (DoubleDelta(candidates=1, delta=coverage.DELTA), TIED_AT_2),
    (OneErrorForgotten(**TERMS), TIED_AT_2),
    (DefaultThatLooksAround(candidates=1, delta=coverage.DELTA), TIED_AT_2),
    (DefaultAtDoubleDelta(candidates=1, delta=coverage.DELTA), TIED_AT_2),
    # Hoeffding is so loose that near the ends even a cheat seldom errs.
    (SteelWithoutUnionTerm(**TERMS), Case("tied", harness._tied(12))),
    (WeightsThatDoNotFall(**TERMS), just_above(2, N, 1 / 2)),
    (ConstantsForFree(**TERMS, constants=10), just_above(2, N, 1 / 2)),
    (DrawsAtTheConstantsShare(**TERMS, constants=2, share=0.9), just_above(2, N, 0.45)),
    (SplitDoubleDelta(**TERMS), TIED_AT_2),
    (SplitThatCertifiesOnAll(**TERMS), TIED_AT_2),
    (SplitThatPeeks(**TERMS), TIED_AT_2),
    (SwapAtAllOfDeltaTwice(**TERMS), TIED_AT_2),
    (SwapThatForgetsToSwap(**TERMS), TIED_AT_2),
    (FinalistsForFree(**TERMS, finalists=3), TIED_AT_2),
    (FinalistsForFree(**TERMS, finalists=4, refinement="learned"), TIED_AT_2),
    (RefinedOnAll(**TERMS), TIED_AT_2),
    (WeightsFromCertifyingExamples(**TERMS), TIED_AT_2),
    (WeightsForFree(**TERMS), TIED_AT_2),
    (DoubleWeights(**TERMS, beta=0.0), just_above(2, N // 2, 2 / 20)),
    (GibbsWithoutItsPrice(**TERMS), TIED_AT_2),
    (EveryAttemptAtFullDelta(**TERMS), CASES[-1]),
]


@pytest.mark.parametrize(
    ("mutant", "case"),
    MUTANTS,
    ids=[f"{type(mutant).__name__}-{mutant.candidates}" for mutant, _ in MUTANTS],
)
def test_mutants_are_caught(mutant: Recipe, case: Case) -> None:
    assert p_value(mutant, case, episodes=5_000) < SIGNIFICANCE / 1000
