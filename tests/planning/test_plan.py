"""A plan: the recipe with the lowest mean at each n, and what follows from it."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import numpy as np
import pytest

from fedcert.adapters.finetune import FinetuneSettings
from fedcert.certificates import Recipe
from fedcert.errors import BundleError, CertificateError, RefusalError
from fedcert.planning import (
    Plan,
    PlanRow,
    Posterior,
    Replayed,
    cautious_mean,
    menu,
    recipe_name,
    tail_values,
    worth_trying,
)
from fedcert.search.drawing import NO_CONSTANTS
from fedcert.settings import RunSettings
from fedcert.simulations.benchmarks.recipes import GibbsRecipe
from fedcert.strategies.planning import planning_of

RANDOMIZED = menu(candidates=50, delta=0.05, constants=2, randomized=True)
RECIPES = menu(candidates=50, delta=0.05, constants=2)
WHOLE = menu(candidates=1000, delta=0.05, constants=2, local_head=True)
UNION, SPLIT = RECIPES[:2]


def _client(**bounds: float) -> list[Replayed]:
    """``r1n16=.3``: recipe 1 would have certified .3 on 16 examples."""
    return [
        Replayed(int(key[1 : key.index("n")]), int(key[key.index("n") + 1 :]), bound, bound)
        for key, bound in bounds.items()
    ]


def _row(n: int, recipe: Recipe, mean: float) -> PlanRow:
    return PlanRow(n, recipe, mean, mean, mean, 1)


@pytest.fixture
def plan() -> Plan:
    return Plan(
        (
            _row(16, UNION, 0.5),
            _row(32, UNION, 0.3),
            _row(64, SPLIT, 0.3),
            _row(128, SPLIT, 0.2),
        )
    )


def test_the_lowest_mean_wins_with_its_own_quantiles() -> None:
    clients = [_client(r0n16=0.2 + 0.01 * i, r1n16=0.1 if i else 0.5) for i in range(11)]
    [row] = Plan.of(RECIPES, clients).rows
    assert row.recipe == SPLIT  # its mean is lower, though not its worst client
    assert row == PlanRow(16, SPLIT, 0.136364, 0.1, 0.1, 11)


def test_means_choose_and_single_bounds_give_the_range() -> None:
    clients = [
        [Replayed(0, 16, 0.3, 0.35), Replayed(1, 16, 0.2 + 0.02 * i, 0.3)] for i in range(11)
    ]
    [row] = Plan.of(RECIPES, clients).rows
    assert row == PlanRow(16, SPLIT, 0.3, 0.22, 0.38, 11)
    # Lower in every single replay, but not on average over a client's examples.
    clients = [[Replayed(0, 16, 0.3, 0.35), Replayed(1, 16, 0.2, 0.4)] for _ in range(11)]
    [row] = Plan.of(RECIPES, clients).rows
    assert row == PlanRow(16, UNION, 0.35, 0.3, 0.3, 11)


def test_a_mean_that_is_lower_by_luck_does_not_win() -> None:
    # 0.25 +- 0.01 against 0.24 +- 0.08: nobody knows which is lower.
    spread = [0.12] * 8 + [0.55, 0.57, 0.56]
    clients = [_client(r0n16=0.2 + 0.01 * i, r1n16=spread[i]) for i in range(11)]
    assert np.mean(spread) < 0.25
    [row] = Plan.of(RECIPES, clients).rows
    assert (row.recipe, row.mean) == (UNION, 0.25)


@pytest.mark.parametrize("count", [2, 5, 40])
def test_the_cautious_mean_is_the_mean_and_its_standard_error(count: int) -> None:
    values = np.linspace(0.1, 0.9, count)
    expected = values.mean() + values.std(ddof=1) / np.sqrt(count)
    assert cautious_mean(list(values)) == pytest.approx(expected)
    assert cautious_mean([0.3]) == 0.3


def test_of_equal_means_the_first_recipe_wins_whatever_the_order() -> None:
    bounds = [0.1, 0.2, 0.3, 0.1 + 0.2, 0.7]
    shuffled = list(bounds)
    for seed in range(20):
        random.Random(seed).shuffle(shuffled)
        pairs = zip(bounds, shuffled, strict=True)
        clients = [_client(r1n16=b, r0n16=a) for a, b in pairs]
        assert Plan.of(RECIPES, clients).rows[0].recipe == UNION


def test_each_size_counts_the_clients_that_have_it() -> None:
    plan = Plan.of(
        RECIPES,
        [
            _client(r0n32=0.4, r1n32=0.3, r0n16=0.5, r1n16=0.6),
            _client(r0n16=0.7, r1n16=0.9),
            [],
        ],
    )
    assert [(row.n, row.recipe, row.mean, row.clients) for row in plan.rows] == [
        (16, UNION, 0.6, 2),
        (32, UNION, 0.4, 1),
    ]


@pytest.mark.parametrize(("having", "recipe"), [(1, UNION), (2, UNION), (3, SPLIT), (5, SPLIT)])
def test_a_size_that_few_clients_reach_keeps_the_choice_of_the_smaller_one(
    having: int, recipe: Recipe
) -> None:
    clients = [_client(r0n16=0.5, r1n16=0.6) for _ in range(5)]
    clients[:having] = [_client(r0n16=0.5, r1n16=0.6, r0n32=0.4, r1n32=0.3)] * having
    rows = Plan.of(RECIPES, clients).rows
    assert [(row.recipe, row.clients) for row in rows] == [(UNION, 5), (recipe, having)]
    assert rows[1].mean == (0.4 if recipe == UNION else 0.3)


def test_few_clients_choose_where_there_never_were_more() -> None:
    [row, other] = Plan.of(RECIPES, [_client(r0n16=0.5, r1n16=0.6, r0n32=0.4, r1n32=0.3)]).rows
    assert (row.recipe, other.recipe) == (UNION, SPLIT)


def test_a_kept_choice_that_was_not_tried_leaves_a_size_unplanned() -> None:
    clients = [_client(r0n16=0.5, r1n16=0.4) for _ in range(4)] + [
        _client(r0n16=0.5, r0n32=0.2)
    ]
    clients[-1].append(Replayed(1, 16, 0.4, 0.4))
    plan = Plan.of(RECIPES, clients)
    assert [(row.n, row.recipe) for row in plan.rows] == [(16, SPLIT)]
    assert plan.table().recipe_for(32) == SPLIT


def test_a_recipe_that_only_some_clients_replayed_does_not_win() -> None:
    plan = Plan.of(RECIPES, [_client(r0n16=0.5, r1n16=0.01), _client(r0n16=0.5)])
    assert plan.rows[0].recipe == UNION


# Clients by number; the second recipe is better for most of them, and bad for two of eight.
_MOST_BETTER = [_client(r0n16=0.3, r1n16=0.15 if i < 6 else 0.45) for i in range(8)]


def test_a_plan_for_the_tail_takes_what_is_best_for_the_worst_quarter() -> None:
    [row] = Plan.of(RECIPES, _MOST_BETTER).rows
    assert (row.recipe, row.tail, row.aim) == (SPLIT, None, row.mean)
    plan = Plan.of(RECIPES, _MOST_BETTER, objective="tail")
    assert plan.rows == (PlanRow(16, UNION, 0.3, 0.3, 0.3, 8, 0.3),)
    assert Plan.from_config(json.loads(json.dumps(plan.to_config()))) == plan
    assert all("tail" not in row for row in Plan.of(RECIPES, _MOST_BETTER).to_config())


@pytest.mark.parametrize(
    ("bounds", "worst"),
    [
        ([0.3], 0.3),
        ([0.1, 0.3, 0.2], 0.3),
        ([0.1, 0.4, 0.2, 0.3], 0.4),
        ([0.4, 0.1, 0.1, 0.3, 0.1, 0.1], (0.4 + 0.5 * 0.3) / 1.5),
        ([0.1] * 6 + [0.5, 0.3], 0.4),
        ([0.25] * 5, 0.25),
    ],
)
def test_the_tail_is_the_mean_of_a_quarter_of_the_clients_though_it_be_no_whole_number(
    bounds: list[float], worst: float
) -> None:
    assert np.mean(tail_values(bounds)) == pytest.approx(worst)


def test_a_tail_that_is_lower_by_luck_does_not_win() -> None:
    # The worst two of eight: .38 on average and much alike, or .37 and wide apart.
    alike, apart = [0.3] * 6 + [0.37, 0.39], [0.3] * 6 + [0.31, 0.43]
    clients = [_client(r0n16=a, r1n16=b) for a, b in zip(alike, apart, strict=True)]
    assert np.mean(tail_values(apart)) < np.mean(tail_values(alike))
    assert Plan.of(RECIPES, clients, objective="tail").rows[0].recipe == UNION


def test_a_target_is_for_whom_the_plan_was_made() -> None:
    rows = (
        PlanRow(16, UNION, 0.2, 0.1, 0.4, 9, 0.4),
        PlanRow(32, UNION, 0.1, 0.1, 0.2, 9, 0.2),
    )
    assert Plan(rows).needed(0.25).n == 32
    with pytest.raises(RefusalError, match=r"best mean of the worst quarter is 0\.2, with"):
        Plan(rows).needed(0.15)
    with pytest.raises(CertificateError, match="at all sizes alike"):
        Plan((rows[0], _row(32, UNION, 0.1)))
    for tail in (0.1, None, "0.4"):
        config = [rows[0].to_config() | {"tail": tail}]
        with pytest.raises(BundleError):
            Plan.from_config(config)


@pytest.mark.parametrize("replays", [[], [[]]])
def test_nothing_to_plan_from(replays: list[list[Replayed]]) -> None:
    with pytest.raises(CertificateError, match="there are no replays to plan from"):
        Plan.of(RECIPES, replays)


def test_the_table_serves_every_size_as_the_plan_says(plan: Plan) -> None:
    table = plan.table()
    assert [start for start, _ in table.rows] == [1, 64]
    for n in range(1, 300):
        expected = plan.expected(n).recipe if n >= 16 else UNION
        assert table.recipe_for(n) == expected


def test_a_plan_of_one_size_serves_all(plan: Plan) -> None:
    only = Plan((plan.rows[-1],))
    assert only.table().recipe_for(1) == only.table().recipe_for(10**6) == SPLIT


def test_what_to_expect_is_that_of_the_size_below(plan: Plan) -> None:
    assert [plan.expected(n).n for n in (16, 31, 32, 127, 128, 10**6)] == [
        16, 16, 32, 64, 128, 128,
    ]  # fmt: skip
    with pytest.raises(
        RefusalError, match=r"nothing was planned for 15 .* smallest size is 16"
    ):
        plan.expected(15)


def test_how_many_are_needed_is_the_smallest_size_that_reaches_it(plan: Plan) -> None:
    targets = (0.9, 0.5, 0.49, 0.3, 0.29, 0.2)
    assert [plan.needed(target).n for target in targets] == [16, 16, 32, 32, 128, 128]
    with pytest.raises(RefusalError, match=r"no planned size reaches 0.1.* 0.2, with 128"):
        plan.needed(0.1)
    with pytest.raises(RefusalError):
        plan.needed(math.nan)


def test_it_comes_back_from_json(plan: Plan) -> None:
    full = Plan(tuple(_row(n, recipe, 0.5) for n, recipe in enumerate(RECIPES, start=1)))
    for one in (plan, full):
        again = Plan.from_config(json.loads(json.dumps(one.to_config())))
        assert again == one
        assert again.table() == one.table()


def _with(plan: Plan, **changes: Any) -> list[dict[str, Any]]:
    config = plan.to_config()
    config[1] |= changes
    return config


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"n": 16}, "sizes must increase"),
        ({"n": 99}, "sizes must increase"),
        ({"n": 0}, "n must be from 1"),
        ({"n": 32.0}, "n must be an integer"),
        ({"n": True}, "n must be an integer"),
        ({"n": "32"}, "n must be an integer"),
        ({"mean": 0}, r"mean must lie in \(0, 1\]"),
        ({"mean": -0.1}, r"mean must lie in \(0, 1\]"),
        ({"high": 1.1}, r"high must lie in \(0, 1\]"),
        ({"mean": math.nan}, "mean must be finite"),
        ({"high": math.inf}, "high must be finite"),
        ({"mean": "0.5"}, "mean must be a number"),
        ({"mean": None}, "mean must be a number"),
        ({"low": 0.31}, "low must not exceed high"),
        ({"clients": 0}, "clients must be from 1"),
        ({"clients": None}, "clients must be an integer"),
        ({"recipe": None}, "a recipe must be an object"),
        ({"recipe": {"kind": "luck"}}, "unknown recipe kind 'luck'"),
        (
            {"recipe": GibbsRecipe(candidates=9, delta=0.05).to_config()},
            "no certificate of",
        ),
        ({"extra": 1}, "a row must hold clients, high, low, mean, n, recipe alone"),
    ],
)
def test_a_damaged_plan_is_refused(plan: Plan, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(BundleError, match=f"the plan in the bundle is damaged: .*{text}"):
        Plan.from_config(_with(plan, **changes))


@pytest.mark.parametrize("config", [None, 1, "rows", b"rows", {}, [], [1], [{}], ["row"], [[]]])
def test_something_else_than_a_plan_is_refused(config: object) -> None:
    with pytest.raises(BundleError, match="the plan in the bundle is damaged"):
        Plan.from_config(config)


# The menu


def test_every_recipe_of_the_menu_may_stand_in_a_bundle_and_has_its_own_name() -> None:
    for recipes in (RECIPES, WHOLE):
        for recipe in recipes:
            recipe.require_exportable()
            assert recipe.delta == 0.05
        assert len({recipe_name(recipe) for recipe in recipes}) == len(recipes)


def test_a_menu_without_posterior_means_keeps_all_else() -> None:
    terms: dict[str, Any] = {"candidates": 50, "delta": 0.05, "local_head": True}
    with_means, without = menu(**terms), menu(**terms, posterior=None)
    left_out = [recipe for recipe in with_means if recipe not in without]
    assert [r for r in with_means if r in without] == list(without)
    assert {recipe.kind for recipe in left_out} == {"posterior_split"}
    assert all("posterior_mean" in recipe.refinement_config()["refinement"].split("+")
               for recipe in left_out)  # fmt: skip
    assert {"default", "tuned_head 0.5", "finetune 0.5"} <= set(map(recipe_name, without))


@pytest.mark.parametrize(
    ("posterior", "suited", "tried"),
    [
        ("auto", "mean", {"posterior_mean", "posterior_mean+finetune"}),
        ("auto", "mode", {"posterior_mode", "posterior_mode+finetune"}),
        ("auto", None, set()),
        ("mean", None, {"posterior_mean", "posterior_mean+finetune"}),
        ("mode", "mean", {"posterior_mode", "posterior_mode+finetune"}),
    ],
)
def test_settings_say_what_of_posteriors_is_tried(
    posterior: str, suited: Posterior | None, tried: set[str]
) -> None:
    flat = {
        "scenario.name": "digits",
        "certificate.recipe": "planned",
        "planning.posterior": posterior,
    }
    chosen = planning_of(
        RunSettings.from_flat(flat),
        NO_CONSTANTS,
        local_head=True,
        posterior=suited,
        training=FinetuneSettings(),
        barred=(),
    )
    assert chosen is not None
    refinements = {str(getattr(recipe, "refinement", "")) for recipe in chosen._recipes}
    assert {name for name in refinements if "posterior" in name} == tried
    assert {"finetune", "tuned_head"} <= refinements


def test_a_mode_needs_no_candidate() -> None:
    modes = [
        recipe
        for recipe in menu(candidates=1000, delta=0.05, posterior="mode")
        if "posterior_mode" in str(getattr(recipe, "refinement", ""))
    ]
    assert [recipe.candidates for recipe in modes] == [2, 1, 1, 1]
    assert all(worth_trying(recipe, 10**6) for recipe in modes)


def test_a_menu_has_what_needs_no_candidate_and_what_needs_few() -> None:
    few = {recipe_name(r): r.candidates for r in WHOLE if r.candidates != 1000}
    assert few == {
        "default": 1,
        "union of 10": 10,
        "union of 100": 100,
        "finetune 0.25": 1,
        "finetune 0.5": 1,
        "tuned_head 0.25": 1,
        "tuned_head 0.375": 1,
        "tuned_head 0.5": 1,
        "local_head 0.5": 1,
        "finetune+tuned_head 0.5": 2,
    }
    assert recipe_name(WHOLE[0]) == "union"
    # No union twice, and nothing that the model cannot do.
    for count, left in ((10, 0), (50, 1), (100, 1), (101, 2)):
        names = [recipe_name(r) for r in menu(candidates=count, delta=0.05)]
        assert sum(name.startswith("union of") for name in names[1:]) == left
        assert not any("local_head" in name for name in names)
    assert all(recipe.candidates == 1 for recipe in menu(candidates=1, delta=0.05))


def test_what_is_fine_tuned_trains_as_upstream_clients_do() -> None:
    training = FinetuneSettings(steps=7, learning_rate=0.002, weight_decay=0.5)
    recipes = menu(candidates=9, delta=0.05, local_head=True, training=training)
    tuned = [r for r in recipes if "finetune" in getattr(r, "refinement", "")]
    assert len(tuned) == 4
    for recipe in tuned:
        config = recipe.to_config()
        said = [config[name] for name in ("tuning_steps", "learning_rate", "pull")]
        assert said == [7, 0.002, 0.5]
    # What every federation had before it could say so goes without saying.
    usual = menu(candidates=9, delta=0.05)
    assert not any("learning_rate" in recipe.to_config() for recipe in usual)


def test_only_a_posterior_of_many_examples_is_left_out() -> None:
    left_out = {recipe_name(r) for r in RECIPES if not worth_trying(r, 256)}
    assert left_out == {
        "posterior_split 0.375", "posterior_split 0.5", "posterior_mean+finetune 0.5",
    }  # fmt: skip
    assert all(worth_trying(recipe, 128) for recipe in RECIPES)


def test_a_menu_is_randomized_as_a_whole() -> None:
    assert [recipe.unwitnessed() for recipe in RANDOMIZED] == list(RECIPES)
    assert all(recipe.randomized for recipe in RANDOMIZED)
    assert all(recipe.first_share == 0.99 for recipe in RECIPES)


def test_parts_are_swapped_from_64_examples_on() -> None:
    [swap] = [recipe for recipe in RECIPES if recipe.kind == "swap"]
    assert [worth_trying(swap, n) for n in (63, 64, 500)] == [False, True, True]
