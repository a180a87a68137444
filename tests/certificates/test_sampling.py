"""Samples in which inputs repeat, or cannot be read: to count all of them is valid, no less."""

from __future__ import annotations

from itertools import product

import pytest

from fedcert.certificates import SplitRecipe, UnionRecipe
from fedcert.simulations.benchmarks.episodes import excess
from fedcert.simulations.benchmarks.sampling import (
    HANDLINGS,
    WORLDS,
    Handling,
    World,
    false_alarms,
    false_certificates,
)

DELTA, SIGNIFICANCE, EPISODES = 0.05, 1e-4, 10_000
RECIPES = [kind(candidates=20, delta=DELTA) for kind in (UnionRecipe, SplitRecipe)]
HONEST, UNREADABLE, REPEATED, SPENT, COPIED = HANDLINGS
FREQUENT, WRONG, BROKEN, BOTH = WORLDS


def _p_value(recipe: UnionRecipe | SplitRecipe, world: World, handling: Handling) -> float:
    false = false_certificates(recipe, world, handling, EPISODES, seed=1)
    return excess(int(false.sum()), EPISODES, DELTA)


@pytest.mark.parametrize(
    ("recipe", "world"),
    list(product(RECIPES, WORLDS)),
    ids=lambda value: value.name if isinstance(value, World) else value.kind,
)
def test_counting_every_observation_is_valid(
    recipe: UnionRecipe | SplitRecipe, world: World
) -> None:
    assert _p_value(recipe, world, HONEST) >= SIGNIFICANCE


@pytest.mark.parametrize(
    ("world", "handling"),
    [
        (BROKEN, UNREADABLE),
        (BOTH, UNREADABLE),
        (WRONG, REPEATED),
        (WRONG, SPENT),
        (BOTH, SPENT),
        (FREQUENT, COPIED),
        (BROKEN, COPIED),
    ],
    ids=str,
)
def test_every_other_handling_is_caught(world: World, handling: Handling) -> None:
    assert _p_value(RECIPES[1], world, handling) < SIGNIFICANCE / 1000


@pytest.mark.parametrize("world", [World(f"{share}", share) for share in (0.5, 0.8, 0.9)])
def test_a_watch_that_counts_observations_keeps_its_level(world: World) -> None:
    alarms = false_alarms(world, distinct=False, episodes=EPISODES, seed=1)
    assert excess(int(alarms.sum()), EPISODES, 0.05) >= SIGNIFICANCE
    # One that counts distinct inputs watches a distribution without the frequent ones.
    assert false_alarms(world, distinct=True, episodes=500, seed=1).mean() > 0.5


def test_a_watch_that_counts_observations_sees_frequent_inputs_go_wrong() -> None:
    drifted = World("drifted", 0.8, wrong=8)
    found = [
        false_alarms(
            drifted, distinct=distinct, episodes=500, seed=2, rare_risk=0.1, bound=0.15
        ).mean()
        for distinct in (False, True)
    ]
    assert found[0] > 0.99
    assert found[1] < 0.5
