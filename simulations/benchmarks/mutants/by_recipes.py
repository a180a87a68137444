"""Recipes that pay too little, or look where they must not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedcert.certificates import (
    WEIGHT_DENOMINATOR,
    Choice,
    DefaultRecipe,
    HybridRecipe,
    MixedUnionRecipe,
    PosteriorSplitRecipe,
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
from fedcert.simulations.benchmarks.episodes import CASES, SIZE, Case, hardest
from fedcert.simulations.benchmarks.mutants.base import DELTA, broken_recipe
from fedcert.simulations.benchmarks.recipes import GibbsRecipe

__all__ = ["MUTANTS", "RefinedOnAll"]

_TERMS: dict[str, Any] = {"candidates": 20, "delta": DELTA}
_ALONE: dict[str, Any] = {"candidates": 1, "delta": DELTA}
_TIED = CASES[1]


@dataclass(frozen=True, kw_only=True)
class NoUnionTerm(UnionRecipe):
    """Every candidate has all of delta."""

    def weight(self, choice: Choice | None = None) -> int:
        return WEIGHT_DENOMINATOR


@dataclass(frozen=True, kw_only=True)
class DoubleWeight(UnionRecipe):
    """Every candidate has twice its weight."""

    def weight(self, choice: Choice | None = None) -> int:
        return 2 * super().weight()


@dataclass(frozen=True, kw_only=True)
class DoubleDelta(UnionRecipe):
    """The budget is that of twice delta."""

    def budget(self, choice: Choice | None = None) -> float:
        return budget_of(2 * self.delta, self.weight())


@dataclass(frozen=True, kw_only=True)
class OneErrorForgotten(UnionRecipe):
    """One error is not counted."""

    def bound(self, errors: int, trials: int, choice: Choice | None = None) -> float:
        return super().bound(max(errors - 1, 0), trials)


@dataclass(frozen=True, kw_only=True)
class DefaultThatLooksAround(DefaultRecipe):
    """The best of 20 adapters is handed out as if it had been the default."""

    @property
    def universe(self) -> int:
        return 20

    def choosing(self, n: int) -> Span:
        return Span(0, n)


@dataclass(frozen=True, kw_only=True)
class DefaultAtDoubleDelta(DefaultRecipe):
    """The budget is that of twice delta."""

    def budget(self, choice: Choice | None = None) -> float:
        return budget_of(2 * self.delta, self.weight())


@dataclass(frozen=True, kw_only=True)
class SteelWithoutUnionTerm(SteelRecipe):
    """Every candidate has all of delta."""

    def weight(self, choice: Choice | None = None) -> int:
        return WEIGHT_DENOMINATOR


@dataclass(frozen=True, kw_only=True)
class WeightsThatDoNotFall(WeightedUnionRecipe):
    """Every candidate has the weight of the first one."""

    def weight(self, choice: Choice | None = None) -> int:
        return WEIGHT_DENOMINATOR // 2


@dataclass(frozen=True, kw_only=True)
class ConstantsForFree(MixedUnionRecipe):
    """Each of ten constant predictors has half of delta."""

    def weight(self, choice: Choice | None = None) -> int:
        constant = choice is not None and choice.index < self.constants
        return WEIGHT_DENOMINATOR // 2 if constant else super().weight(choice)


@dataclass(frozen=True, kw_only=True)
class DrawsAtTheConstantsShare(MixedUnionRecipe):
    """Draws have the weight of constant predictors."""

    def weight(self, choice: Choice | None = None) -> int:
        return super().weight(Choice(index=0))


@dataclass(frozen=True, kw_only=True)
class SplitDoubleDelta(SplitRecipe):
    """The budget is that of twice delta."""

    def budget(self, choice: Choice | None = None) -> float:
        return budget_of(2 * self.delta, self.weight())


@dataclass(frozen=True, kw_only=True)
class SplitThatCertifiesOnAll(SplitRecipe):
    """The choosing examples certify as well."""

    def certifying(self, n: int) -> Span:
        return Span(0, n)


@dataclass(frozen=True, kw_only=True)
class SplitThatPeeks(SplitRecipe):
    """The certifying examples choose as well."""

    def choosing(self, n: int) -> Span:
        return Span(0, n)


@dataclass(frozen=True, kw_only=True)
class SplitChosenByCertifying(SplitRecipe):
    """The certifying examples alone choose."""

    def choosing(self, n: int) -> Span:
        return self.certifying(n)


@dataclass(frozen=True, kw_only=True)
class SwapAtAllOfDeltaTwice(SwapRecipe):
    """Each half certifies at all of delta."""

    def weight(self, choice: Choice | None = None) -> int:
        return WEIGHT_DENOMINATOR


@dataclass(frozen=True, kw_only=True)
class SwapThatForgetsToSwap(SwapRecipe):
    """Each half certifies what it chose itself."""

    def select(self, counts: Counts) -> Selection:
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
    """Every finalist has all of delta."""

    def weight(self, choice: Choice | None = None) -> int:
        return WEIGHT_DENOMINATOR


@dataclass(frozen=True, kw_only=True)
class RefinedOnAll(PosteriorSplitRecipe):
    """Finalists are refined on the certifying examples as well."""

    def choosing(self, n: int) -> Span:
        """Return all of them."""
        return Span(0, n)


@dataclass(frozen=True, kw_only=True)
class WeightsFromCertifyingExamples(HybridRecipe):
    """The certifying examples have a part in the weights."""

    def select(self, counts: Counts) -> Selection:
        peeked = counts.choosing + counts.certifying
        return super().select(
            replace(counts, choosing=peeked, chosen_on=counts.chosen_on + counts.certified_on)
        )


@dataclass(frozen=True, kw_only=True)
class WeightsForFree(HybridRecipe):
    """Every candidate has all of delta."""

    def weights(self, profile: Any) -> tuple[int, ...]:
        return tuple(WEIGHT_DENOMINATOR for _ in profile)


@dataclass(frozen=True, kw_only=True)
class DoubleWeights(HybridRecipe):
    """Every candidate has twice its weight."""

    def weights(self, profile: Any) -> tuple[int, ...]:
        # At beta = 0 every weight is 1/20 and can be doubled.
        return tuple(2 * weight for weight in super().weights(profile))


@dataclass(frozen=True, kw_only=True)
class GibbsWithoutItsPrice(GibbsRecipe):
    """The bound is the share of errors and .02."""

    def select(self, counts: Counts) -> Selection:
        honest = super().select(counts)
        return replace(honest, bounds=honest.errors / counts.certified_on + 0.02)


@dataclass(frozen=True, kw_only=True)
class EveryAttemptAtFullDelta(UnionRecipe):
    """Each of three attempts has all of delta."""

    def with_delta(self, delta: float) -> EveryAttemptAtFullDelta:
        return self


def _just_above(errors: int, trials: int, share: float) -> Case:
    """Return a case just above the bound of a candidate with that share of delta."""
    risk = binomial_upper_bound(errors, trials, share * DELTA) + 1e-9
    return Case("tied", lambda _recipe, count: np.full(count, risk))


_STEEP = Case("tied", lambda recipe, count: np.full(count, hardest(recipe, 12)))

MUTANTS = tuple(
    broken_recipe(mutant, case)
    for mutant, case in (
        (NoUnionTerm(**_TERMS), _TIED),
        (DoubleWeight(**_TERMS), _TIED),
        (DoubleDelta(**_TERMS), _TIED),
        (DoubleDelta(**_ALONE), _TIED),
        (OneErrorForgotten(**_TERMS), _TIED),
        (EveryAttemptAtFullDelta(**_TERMS), CASES[-1]),
        (DefaultThatLooksAround(**_ALONE), _TIED),
        (DefaultAtDoubleDelta(**_ALONE), _TIED),
        # Hoeffding is so loose that near the ends even a cheat seldom errs.
        (SteelWithoutUnionTerm(**_TERMS), _STEEP),
        (WeightsThatDoNotFall(**_TERMS), _just_above(2, SIZE, 1 / 2)),
        (ConstantsForFree(**_TERMS, constants=10), _just_above(2, SIZE, 1 / 2)),
        (
            DrawsAtTheConstantsShare(**_TERMS, constants=2, share=0.9),
            _just_above(2, SIZE, 0.45),
        ),
        (SplitDoubleDelta(**_TERMS), _TIED),
        (SplitThatCertifiesOnAll(**_TERMS), _TIED),
        (SplitThatPeeks(**_TERMS), _TIED),
        (SplitChosenByCertifying(**_TERMS), _TIED),
        (SwapAtAllOfDeltaTwice(**_TERMS), _TIED),
        (SwapThatForgetsToSwap(**_TERMS), _TIED),
        (FinalistsForFree(**_TERMS, finalists=3), _TIED),
        (FinalistsForFree(**_TERMS, finalists=4, refinement="learned"), _TIED),
        (RefinedOnAll(**_TERMS), _TIED),
        (WeightsFromCertifyingExamples(**_TERMS), _TIED),
        (WeightsForFree(**_TERMS), _TIED),
        (DoubleWeights(**_TERMS, beta=0.0), _just_above(2, SIZE // 2, 2 / 20)),
        (GibbsWithoutItsPrice(**_TERMS), _TIED),
    )
)
