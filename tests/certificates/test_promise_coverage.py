"""Promises, played out: honest ones keep their delta; mutants are in `test_mutants`."""

from __future__ import annotations

from typing import Any

import pytest

from fedcert.certificates import (
    AbstentionOutcome,
    AbstentionPromise,
    ExitPromise,
    Ground,
    Promise,
    Recipe,
    ReferencePromise,
    SetsPromise,
    SplitRecipe,
)
from fedcert.certificates.promises.base import PROMISES
from fedcert.simulations.benchmarks import point_episodes, promise_episodes
from fedcert.simulations.benchmarks.episodes import excess
from fedcert.simulations.benchmarks.point_episodes import (
    CLIENTS,
    POINTS,
    clients_recipe,
    false_together,
    points_recipe,
)
from fedcert.simulations.benchmarks.promise_episodes import (
    DELTA,
    WORLDS,
    World,
    cases,
    false_promises,
)

EPISODES = 1_000
SIGNIFICANCE = 1e-4
BEYOND, MISSING, EXITING, PUBLIC = (WORLDS[place] for place in (0, 6, 7, 10))


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


SPLIT, FOUR = (SplitRecipe(candidates=count, delta=DELTA) for count in (1, 4))


def test_the_worlds_are_hard() -> None:
    # Otherwise honest promises would pass for want of a challenge.
    for promise, world in (
        (AbstentionPromise(share=1.0, most_wrong=0.25), BEYOND),
        (SetsPromise(share=1.0, size=3), MISSING),
        (ExitPromise(share=1.0, early="early", threshold=1.5), EXITING),
        (ReferencePromise(share=1.0), PUBLIC),
    ):
        recipe = FOUR if promise.public else SPLIT
        count = false_promises(recipe, promise, world, 3_000, seed=4)
        assert count / 3_000 > 0.3 * DELTA


@pytest.mark.parametrize(
    ("recipe", "count"),
    [(points_recipe(), POINTS), (clients_recipe(), CLIENTS)],
    ids=["points", "clients"],
)
def test_the_best_of_several_keeps_delta(recipe: Recipe, count: int) -> None:
    false = false_together(recipe, count, 10_000, seed=5)
    assert excess(false, 10_000, DELTA) >= SIGNIFICANCE
    # All of it is used: what each has is not less than it may have.
    assert false / 10_000 > 0.8 * DELTA


def test_every_promise_is_played() -> None:
    rows = [*promise_episodes.rows(1), *point_episodes.rows(1)]
    own = {kind for kind, cls in PROMISES.items() if cls.__module__.startswith("fedcert.")}
    assert own == {row["promise"] for row in rows}


def test_an_outcome_of_few_answers_says_nothing_of_them() -> None:
    promise, ground = AbstentionPromise(share=1.0), Ground(0.05, 32, 32)
    few = AbstentionOutcome(
        threshold=1.0, answered=15, judged=15, wrong=0, answered_at_least=0.0
    )
    assert promise.bound(few, ground).wrong_at_most is None
    assert "too few" in promise.words(promise.bound(few, ground), ground)
