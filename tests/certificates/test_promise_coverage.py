"""Promises, played out: honest ones keep their delta, and mutants that cheat are caught."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from fedcert.certificates import (
    AbstentionOutcome,
    AbstentionPromise,
    Evidence,
    ExitPromise,
    GainOutcome,
    GainPromise,
    Ground,
    Promise,
    Recipe,
    SetsOutcome,
    SetsPromise,
    SplitRecipe,
    UnionRecipe,
    binomial_upper_bound,
)
from fedcert.certificates.promises.limits import lower_limit
from fedcert.simulations.benchmarks.episodes import excess
from fedcert.simulations.benchmarks.point_episodes import false_points, points_recipe
from fedcert.simulations.benchmarks.promise_episodes import (
    DELTA,
    WORLDS,
    World,
    cases,
    false_promises,
)

EPISODES = 1_000
SIGNIFICANCE = 1e-4
BEYOND, SILENT, TELLING, TRADED, LOSING, NO_GAIN, MISSING, EXITING, NO_MATTER, HELPING = WORLDS
_FULL = binomial_upper_bound(0, 32, DELTA) + 1e-9
BOTH = World(
    "a policy just beyond what all of delta gives on both halves",
    (1.0, 2.0),
    (_FULL, 1 - _FULL),
    (0.0, _FULL / (1 - _FULL)),
    rival_wrong=(0.0, 0.0),
)
TWICE = World(
    "just beyond what all of delta on both halves gives",
    (1.0, 2.0),
    (1 - 0.9106, 0.9106),
    (1.0, binomial_upper_bound(0, 28, DELTA) + 1e-9),
)


def p_value(recipe: Recipe, promise: Promise[Any], world: World, episodes: int) -> float:
    count = false_promises(recipe, promise, world, episodes, seed=3)
    return excess(count, episodes, DELTA)


@pytest.mark.parametrize(
    ("recipe", "promise", "world"),
    list(cases()),
    ids=lambda part: getattr(part, "name", getattr(part, "kind", None)),
)
def test_no_more_than_delta_are_false(
    recipe: Recipe, promise: Promise[Any], world: World
) -> None:
    few = EPISODES if recipe.candidates < 4 else 500
    assert p_value(recipe, promise, world, few) >= SIGNIFICANCE


@dataclass(frozen=True, kw_only=True)
class FullOnBothHalves(AbstentionPromise):
    def _half(self, ground: Ground) -> float:
        return ground.budget


@dataclass(frozen=True, kw_only=True)
class ThresholdFromCertifying(AbstentionPromise):
    def choose(self, evidence: Evidence, ground: Ground) -> float | None:
        margins = sorted({0.0, *(evidence.certifying.margins + 0.01).tolist()})
        return self._best(margins, evidence.certifying, evidence, ground)


@dataclass(frozen=True, kw_only=True)
class OneSided(GainPromise):
    def bound(self, outcome: GainOutcome, ground: Ground) -> GainOutcome:
        won = lower_limit(outcome.won, ground.trials, ground.budget)
        return replace(outcome, at_least=won - outcome.lost / ground.trials)


@dataclass(frozen=True, kw_only=True)
class Unpaired(GainPromise):
    def bound(self, outcome: GainOutcome, ground: Ground) -> GainOutcome:
        # As if who wins and who loses an example were known from two separate accuracies.
        right = lower_limit(ground.trials - outcome.lost, ground.trials, ground.budget)
        others = binomial_upper_bound(
            ground.trials - outcome.won, ground.trials, ground.budget / 2
        )
        return replace(outcome, at_least=right - min(others, 1 - outcome.won / ground.trials))


@dataclass(frozen=True, kw_only=True)
class NoWeight(SetsPromise):
    def bound(self, outcome: SetsOutcome, ground: Ground) -> SetsOutcome:
        return super().bound(outcome, replace(ground, budget=DELTA))


@dataclass(frozen=True, kw_only=True)
class SizeChosenAfter(SetsPromise):
    """It counts a larger set once the promised one misses."""

    def count(self, evidence: Evidence, chosen: None, ground: Ground) -> SetsOutcome:
        larger = replace(self, size=self.size + 1)
        return SetsPromise.count(larger, evidence, chosen, ground)


@dataclass(frozen=True, kw_only=True)
class ExitFromCertifying(ExitPromise):
    """It takes the threshold at which the certifying examples themselves err least."""

    def choose(self, evidence: Evidence, ground: Ground) -> float | None:
        early = evidence.early(self.early)
        assert early is not None
        steps = sorted({0.0, *(early.certifying.margins + 0.01).tolist()})
        return min(steps, key=lambda step: self.count(evidence, step, ground).wrong or 0)


@dataclass(frozen=True, kw_only=True)
class ExitAtFullOnBothHalves(ExitPromise):
    def _half(self, ground: Ground, weight: int) -> float:
        return ground.budget


@dataclass(frozen=True, kw_only=True)
class ExitWithoutWeight(ExitPromise):
    """It takes the best of many early adapters at the price of one."""

    def _half(self, ground: Ground, weight: int) -> float:
        return super()._half(replace(ground, budget=DELTA), weight)


SPLIT = SplitRecipe(candidates=1, delta=DELTA)
MOST_CERTIFY = SplitRecipe(candidates=1, delta=DELTA, choose_fraction=1 / 64)


@pytest.mark.parametrize(
    ("recipe", "mutant", "world"),
    [
        (SPLIT, FullOnBothHalves(share=1.0, most_wrong=0.25), TWICE),
        (MOST_CERTIFY, ThresholdFromCertifying(share=1.0, most_wrong=0.05), SILENT),
        (SPLIT, OneSided(share=1.0), LOSING),
        (SPLIT, Unpaired(share=1.0), NO_GAIN),
        (UnionRecipe(candidates=8, delta=DELTA), NoWeight(share=1.0, size=3), MISSING),
        (SPLIT, SizeChosenAfter(share=1.0, size=3), MISSING),
        (MOST_CERTIFY, ExitFromCertifying(share=1.0, early="early"), NO_MATTER),
        (
            SPLIT,
            ExitAtFullOnBothHalves(share=1.0, early="early", threshold=1.5),
            BOTH,
        ),
        (
            UnionRecipe(candidates=8, delta=DELTA),
            ExitWithoutWeight(share=1.0, early="early", threshold=1.5),
            EXITING,
        ),
    ],
    ids=lambda part: type(part).__name__,
)
def test_mutants_are_caught(recipe: Recipe, mutant: Promise[Any], world: World) -> None:
    assert p_value(recipe, mutant, world, 2_000) < SIGNIFICANCE


def test_the_worlds_are_hard() -> None:
    # Otherwise honest promises would pass for want of a challenge.
    for promise, world in (
        (AbstentionPromise(share=1.0, most_wrong=0.25), BEYOND),
        (SetsPromise(share=1.0, size=3), MISSING),
        (ExitPromise(share=1.0, early="early", threshold=1.5), EXITING),
    ):
        count = false_promises(SPLIT, promise, world, 3_000, seed=4)
        assert count / 3_000 > 0.3 * DELTA


def test_the_best_of_several_points_keeps_delta() -> None:
    recipe = points_recipe()
    assert excess(false_points(recipe, 10_000, seed=5), 10_000, DELTA) >= SIGNIFICANCE
    # All of it is used: what each point has is not less than it may have.
    assert false_points(recipe, 10_000, seed=5) / 10_000 > 0.8 * DELTA


def test_the_best_of_several_points_at_all_of_delta_each_is_caught() -> None:
    undivided = replace(points_recipe(), delta=DELTA, promises=())
    assert excess(false_points(undivided, 2_000, seed=5), 2_000, DELTA) < SIGNIFICANCE


def test_an_outcome_of_few_answers_says_nothing_of_them() -> None:
    promise, ground = AbstentionPromise(share=1.0), Ground(0.05, 32, 32)
    few = AbstentionOutcome(
        threshold=1.0, answered=15, judged=15, wrong=0, answered_at_least=0.0
    )
    assert promise.bound(few, ground).wrong_at_most is None
    assert "too few" in promise.words(promise.bound(few, ground), ground)
