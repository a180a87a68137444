"""Validity, played out: certificates of candidates whose risk is exactly known.

Honest recipes must be false at most a share delta of the time. In `test_mutants` those that
cheat must be caught by the same test, or it would have no teeth.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from fedcert.certificates import (
    DefaultRecipe,
    HybridRecipe,
    MixedUnionRecipe,
    PosteriorSplitRecipe,
    Recipe,
    SplitRecipe,
    SwapRecipe,
    UnionRecipe,
)
from fedcert.certificates.counts import Selection
from fedcert.certificates.recipes.base import RECIPES as KINDS
from fedcert.planning import Posterior, menu, recipe_name
from fedcert.simulations.benchmarks import coverage
from fedcert.simulations.benchmarks import episodes as harness
from fedcert.simulations.benchmarks.conditioning import INPUTS
from fedcert.simulations.benchmarks.coverage import RECIPES
from fedcert.simulations.benchmarks.episodes import CASES, Case, excess, false_certificates
from fedcert.simulations.benchmarks.sampling import WORLDS

EPISODES = 2_000
N = harness.SIZE
TERMS: dict[str, Any] = {"candidates": 20, "delta": coverage.DELTA}
SIGNIFICANCE = 1e-4
TIED_AT_0 = CASES[0]


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


def test_every_recipe_of_the_menu_and_every_kind_is_played() -> None:
    played = {recipe_name(recipe) for recipe in RECIPES}
    posteriors: tuple[Posterior | None, ...] = ("mean", "mode", None)
    for local_head, randomized, posterior in product((False, True), (False, True), posteriors):
        asked = menu(
            candidates=1000,
            delta=coverage.DELTA,
            constants=10,
            local_head=local_head,
            posterior=posterior,
            randomized=randomized,
        )
        assert {recipe_name(recipe) for recipe in asked} <= played
    kinds = {kind for kind, cls in KINDS.items() if cls.__module__.startswith("fedcert.cert")}
    assert kinds <= {recipe.kind for recipe in RECIPES}
    assert {recipe.kind for recipe in RECIPES if recipe.randomized} >= {
        recipe.kind for recipe in menu(candidates=1000, delta=0.05, constants=10)
    }


def test_the_benchmark_plays_every_recipe_in_every_case() -> None:
    rows = list(coverage.coverage(50))
    worlds = {world.name for world in WORLDS}
    worlds |= {inputs.name for inputs in INPUTS}
    assert {row["case"] for row in rows} == {case.name for case in CASES} | worlds
    assert len({row["recipe"] for row in rows}) >= len(RECIPES)
    assert all(set(row) == set(rows[0]) and row["episodes"] == 50 for row in rows)
    assert rows == list(coverage.coverage(50))


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
