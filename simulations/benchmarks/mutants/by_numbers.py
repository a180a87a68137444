"""Randomized bounds whose number is not the seed's, or is not paid for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fedcert.certificates import Choice, SplitRecipe, binomial_upper_bound, budget_of
from fedcert.certificates.counts import Counts, Selection
from fedcert.simulations.benchmarks.episodes import SIZE, Case
from fedcert.simulations.benchmarks.mutants.base import DELTA, broken_recipe

__all__ = ["MUTANTS"]


@dataclass(frozen=True, kw_only=True)
class BestOfThreeNumbers(SplitRecipe):
    """The number is drawn again until it pleases."""

    def select(self, counts: Counts) -> Selection:
        rng = np.random.default_rng(0)
        drawn = 1 - rng.random((3, len(counts.certifying)))
        return super().select(replace(counts, numbers=drawn.min(axis=0)))


@dataclass(frozen=True, kw_only=True)
class NumberNearZero(SplitRecipe):
    """The number is fixed near zero."""

    def select(self, counts: Counts) -> Selection:
        return super().select(replace(counts, numbers=np.full(len(counts.certifying), 1e-12)))


@dataclass(frozen=True, kw_only=True)
class NumberThatKnowsTheErrors(SplitRecipe):
    """The number is low where errors are few, as if the seed were known first."""

    def select(self, counts: Counts) -> Selection:
        assert counts.numbers is not None
        rank = np.empty(len(counts.numbers))
        rank[counts.certifying[:, 0].argsort(kind="stable")] = np.sort(counts.numbers)
        return super().select(replace(counts, numbers=rank))


@dataclass(frozen=True, kw_only=True)
class RandomizedAtDoubleDelta(SplitRecipe):
    """The randomized bound has twice delta."""

    def budget(self, choice: Choice | None = None) -> float:
        return budget_of(2 * self.delta, self.weight())


# Between two plain bounds: there a number decides most.
_BETWEEN = float(np.mean([binomial_upper_bound(k, SIZE // 2, DELTA) for k in (2, 3)]))
_CASE = Case("between two plain bounds", lambda _recipe, count: np.full(count, _BETWEEN))

MUTANTS = tuple(
    broken_recipe(kind(candidates=1, delta=DELTA, randomized=True), _CASE)
    for kind in (
        BestOfThreeNumbers,
        NumberNearZero,
        NumberThatKnowsTheErrors,
        RandomizedAtDoubleDelta,
    )
)
