"""The recipes that ship, and the table that maps support-set sizes to them."""

from __future__ import annotations

from typing import Any

import pytest

from fedcert.certificates import (
    WEIGHT_DENOMINATOR,
    Recipe,
    RecipeTable,
    SplitRecipe,
    SteelRecipe,
    UnionRecipe,
    binomial_upper_bound,
    hoeffding_upper_bound,
    uniform_weight,
)
from fedcert.certificates.recipes import register
from fedcert.errors import CertificateError

from .recipe_suite import WeightSuite

UNION = UnionRecipe(candidates=20_000, delta=0.05)
STEEL = SteelRecipe(candidates=20_000, delta=0.05)
SPLIT = SplitRecipe(candidates=20_000, delta=0.05)


class TestUnion(WeightSuite):
    recipe = UNION
    few = UnionRecipe(candidates=9, delta=0.05)

    def test_the_same_examples_choose_and_certify(self) -> None:
        assert self.recipe.choosing(80) == self.recipe.certifying(80) == (0, 80)

    def test_every_candidate_is_paid_for(self) -> None:
        assert self.recipe.weight() == uniform_weight(20_000)
        assert round(self.recipe.bound(8, 80), 3) == 0.324


class TestSteel(WeightSuite):
    recipe = STEEL
    few = SteelRecipe(candidates=9, delta=0.05)

    def test_it_is_the_union_recipe_with_hoeffding(self) -> None:
        assert self.recipe.certifying(80) == (0, 80)
        assert self.recipe.bound(8, 80) == hoeffding_upper_bound(8, 80, UNION.budget())
        assert "Hoeffding" in self.recipe.statement(80)

    def test_it_is_not_equal_to_the_union_recipe(self) -> None:
        assert self.recipe != UNION


class TestSplit(WeightSuite):
    recipe = SPLIT
    few = SplitRecipe(candidates=9, delta=0.05)

    def test_nothing_is_paid_for_choosing(self) -> None:
        assert self.recipe.weight() == WEIGHT_DENOMINATOR
        assert self.recipe.bound(4, 40) == binomial_upper_bound(4, 40, 0.05)
        assert [entry.delta for entry in self.recipe.ledger(80)] == [0.0, 0.05]

    def test_no_example_both_chooses_and_certifies(self) -> None:
        for n in range(1, 100):
            assert self.recipe.choosing(n).stop == self.recipe.certifying(n).start

    @pytest.mark.parametrize(
        ("fraction", "n", "choosing"),
        [
            (0.5, 80, 40),
            (0.5, 81, 40),
            (0.5, 1, 0),
            (0.3, 10, 3),
            (0.1, 5, 0),
            (0.7, 5, 3),
            (0.9, 4, 4),
        ],
    )
    def test_halves_go_to_the_certifying_side(
        self, fraction: float, n: int, choosing: int
    ) -> None:
        recipe = SplitRecipe(candidates=5, delta=0.05, choose_fraction=fraction)
        assert recipe.choosing(n) == (0, choosing)
        assert recipe.certifying(n) == (choosing, n)

    @pytest.mark.parametrize("fraction", [0.0, 1.0, 1, "0.5", float("nan")])
    def test_an_impossible_fraction_is_refused(self, fraction: Any) -> None:
        with pytest.raises(CertificateError, match="choose_fraction must lie between"):
            SplitRecipe(candidates=5, delta=0.05, choose_fraction=fraction)


class TestRecipeTable:
    table = RecipeTable(((16, UNION), (64, SPLIT)))

    @pytest.mark.parametrize(
        ("n", "recipe"), [(16, UNION), (63, UNION), (64, SPLIT), (10**6, SPLIT)]
    )
    def test_a_recipe_serves_from_its_threshold_on(self, n: int, recipe: Recipe) -> None:
        assert self.table.recipe_for(n) == recipe
        assert self.table.contains(recipe, n)

    def test_there_is_none_below_the_first_threshold(self) -> None:
        message = "no recipe for 15 examples; the smallest support set .* serves has 16"
        with pytest.raises(CertificateError, match=message):
            self.table.recipe_for(15)
        assert not self.table.contains(UNION, 15)

    @pytest.mark.parametrize(
        "recipe", [STEEL, SPLIT, UnionRecipe(candidates=20_000, delta=0.04)]
    )
    def test_another_recipe_is_not_contained(self, recipe: Recipe) -> None:
        assert not self.table.contains(recipe, 16)

    def test_its_config_makes_an_equal_table(self) -> None:
        config = self.table.to_config()
        assert config[1] == {"from": 64, "recipe": SPLIT.to_config()}
        assert RecipeTable.from_config(config) == self.table

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ([], "a recipe table needs at least one row"),
            ({}, "a recipe table must be an array"),
            ("union", "a recipe table must be an array"),
            ([{"from": 1}], 'must hold "from" and "recipe" alone'),
            ([{"from": 1, "recipe": UNION.to_config(), "to": 9}], "alone"),
            ([{"from": 0, "recipe": UNION.to_config()}], "integer from 1 on, not 0"),
            ([{"from": "1", "recipe": UNION.to_config()}], "integer from 1 on, not '1'"),
            ([{"from": True, "recipe": UNION.to_config()}], "integer from 1 on, not True"),
            (
                [{"from": 1, "recipe": UNION.to_config()}] * 2,
                r"must increase, not \[1, 1\]",
            ),
            ([{"from": 1, "recipe": {"kind": "x"}}], "unknown recipe kind 'x'"),
        ],
    )
    def test_a_wrong_config_is_refused(self, config: Any, message: str) -> None:
        with pytest.raises(CertificateError, match=message):
            RecipeTable.from_config(config)


def test_two_recipes_cannot_share_a_kind() -> None:
    with pytest.raises(ValueError, match="two recipes call themselves 'union'"):
        register(UnionRecipe)


def test_a_recipe_that_is_no_object_is_refused() -> None:
    with pytest.raises(CertificateError, match="a recipe must be an object, not 'union'"):
        Recipe.from_config("union")
