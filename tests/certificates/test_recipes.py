"""The recipes that ship, and the table that maps support-set sizes to them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom

from fedcert.canonical import canonical_json
from fedcert.certificates import (
    WEIGHT_DENOMINATOR,
    Choice,
    DefaultRecipe,
    PosteriorSplitRecipe,
    Recipe,
    RecipeTable,
    SplitRecipe,
    SteelRecipe,
    SwapRecipe,
    UnionRecipe,
    binomial_upper_bound,
    hoeffding_upper_bound,
    uniform_weight,
)
from fedcert.certificates.promises import promises_asked
from fedcert.certificates.recipes import register
from fedcert.certificates.recipes.session import TableSession
from fedcert.certificates.replay import ErrorTable, replay
from fedcert.errors import CertificateError

from .recipe_suite import WeightSuite

UNION = UnionRecipe(candidates=20_000, delta=0.05)
STEEL = SteelRecipe(candidates=20_000, delta=0.05)
SPLIT = SplitRecipe(candidates=20_000, delta=0.05)


class Settled(TableSession):
    """A table whose predictions count the same at every margin tolerance."""

    def at(self, tolerance: float) -> Self:
        return self


class OnlyCenter(Settled):
    """A session that has a center, and fails at any look at an example."""

    def __init__(self) -> None:
        pass

    def center(self) -> npt.NDArray[np.float64]:
        return np.array([7.0])


class TestUnion(WeightSuite):
    recipe = UNION
    few = UnionRecipe(candidates=9, delta=0.05)

    def test_the_same_examples_choose_and_certify(self) -> None:
        assert self.recipe.choosing(80) == self.recipe.certifying(80) == (0, 80)

    def test_every_candidate_is_paid_for(self) -> None:
        assert self.recipe.weight() == uniform_weight(20_000)
        assert round(self.recipe.bound(8, 80), 3) == 0.324


class TestDefault(WeightSuite):
    recipe = DefaultRecipe(candidates=1, delta=0.05)
    few = recipe

    def test_nothing_is_chosen_and_nothing_paid_for(self) -> None:
        assert self.recipe.choosing(80).size == 0
        assert self.recipe.certifying(80) == (0, 80)
        assert self.recipe.weight() == WEIGHT_DENOMINATOR
        assert self.recipe.bound(3, 80) == binomial_upper_bound(3, 80, 0.05)
        assert [entry.delta for entry in self.recipe.ledger(80)] == [0.05]
        assert self.recipe.pays_for_choosing(80)

    def test_it_is_as_tight_as_a_union_of_one(self) -> None:
        union = UnionRecipe(candidates=1, delta=0.05)
        for n in (1, 16, 80):
            bounds = [self.recipe.bound(k, n) for k in range(n + 1)]
            assert bounds == [union.bound(k, n) for k in range(n + 1)]

    @pytest.mark.parametrize("candidates", [0, 2, 1000])
    def test_it_has_one_candidate(self, candidates: int) -> None:
        with pytest.raises(CertificateError, match="candidates must be from 1 to"):
            DefaultRecipe(candidates=candidates, delta=0.05)

    def test_it_chooses_the_center_without_a_look(self) -> None:
        chosen = self.recipe.choose(OnlyCenter())
        assert chosen.choice == Choice(index=0)
        assert chosen.vector.tolist() == [7.0]


class TestSteel(WeightSuite):
    recipe = STEEL
    few = SteelRecipe(candidates=9, delta=0.05)

    def test_it_is_the_union_recipe_with_hoeffding(self) -> None:
        assert self.recipe.certifying(80) == (0, 80)
        assert self.recipe.bound(8, 80) == hoeffding_upper_bound(8, 80, UNION.budget())
        assert "Hoeffding" in self.recipe.statement(80)

    def test_it_is_not_equal_to_the_union_recipe(self) -> None:
        assert self.recipe != UNION


class TestSwap(WeightSuite):
    recipe = SwapRecipe(candidates=20_000, delta=0.05)
    few = SwapRecipe(candidates=9, delta=0.05)

    def test_each_part_has_half_of_delta(self) -> None:
        assert self.recipe.weight() == WEIGHT_DENOMINATOR // 2
        assert self.recipe.bound(4, 40) == binomial_upper_bound(4, 40, 0.025)
        assert [entry.delta for entry in self.recipe.ledger(80)] == [0.0, 0.025, 0.025]

    def test_a_hypothesis_says_which_part_chose_it(self) -> None:
        first, second = Choice(index=7), Choice(index=20_007)
        assert [self.recipe.candidate_of(choice) for choice in (first, second)] == [7, 7]
        assert self.recipe.certifies_on(first, 81) == (40, 81)
        assert self.recipe.certifies_on(second, 81) == (0, 40)
        self.recipe.check_choice(Choice(index=39_999), 80)
        with pytest.raises(CertificateError, match="no candidate 40000 among 40000"):
            self.recipe.check_choice(Choice(index=40_000), 80)

    def test_the_lower_bound_counts(self) -> None:
        # Candidate 0 is best on the first part, candidate 1 on the second.
        wrong = np.zeros((2, 16), dtype=np.bool_)
        wrong[0, 8:13] = True
        wrong[1, 1:3] = True
        recipe = SwapRecipe(candidates=2, delta=0.05)
        table = ErrorTable(
            wrong=wrong, losses=np.zeros((2, 16)), test_risk=np.array([0.5, 0.25])
        )
        outcome = replay(recipe, table, 16)
        assert outcome.index == 2 + 1
        assert (outcome.errors, outcome.trials) == (2, 8)
        assert outcome.bound == recipe.bound(2, 8)
        assert outcome.risk == 0.25

    def test_a_part_s_choice_is_checked_on_that_part(self) -> None:
        wrong = np.zeros((2, 16), dtype=np.bool_)
        wrong[0, 8:13] = True
        wrong[1, 1:3] = True
        table = ErrorTable(wrong=wrong, losses=np.zeros((2, 16)), test_risk=np.zeros(2))
        recipe = SwapRecipe(candidates=2, delta=0.05)
        session = Settled(table, candidates=2, n=16)
        assert recipe.choose(session).choice == Choice(index=3)
        for honest in (0, 3):
            recipe.check_repeated(Choice(index=honest), session)
        # Chosen on the part that certifies it: no errors there, and no part chose it.
        for forged in (1, 2):
            with pytest.raises(CertificateError, match="the recipe chooses that one"):
                recipe.check_repeated(Choice(index=forged), session)

    def test_each_part_breaks_ties_by_its_own_losses(self) -> None:
        losses = np.ones((3, 16))
        losses[1, :8], losses[2, 8:] = 0.5, 0.5
        table = ErrorTable(
            wrong=np.zeros((3, 16), dtype=np.bool_), losses=losses, test_risk=np.zeros(3)
        )
        counts, _ = SwapRecipe(candidates=3, delta=0.05).counts_and_risks(table, 16, None)
        assert SwapRecipe(candidates=3, delta=0.05).select(counts).index == [1]
        harder = replace(counts, certifying=counts.certifying + 1)
        assert SwapRecipe(candidates=3, delta=0.05).select(harder).index == [3 + 2]

    @pytest.mark.parametrize("n", [16, 32, 64, 128])
    def test_it_gains_what_was_computed_apart(self, n: int) -> None:
        # Two halves with independent counts and equal risks, the lower bound of both.
        expected = {
            16: (0.388, 0.425, 0.514, 0.602),
            32: (0.239, 0.293, 0.401, 0.504),
            64: (0.156, 0.217, 0.331, 0.437),
            128: (0.112, 0.173, 0.286, 0.393),
        }[n]
        m = n // 2
        bounds = np.array([self.recipe.bound(k, m) for k in range(m + 1)])
        for risk, value in zip((0.05, 0.1, 0.2, 0.3), expected, strict=True):
            least = binom.sf(np.arange(-1, m), m, risk) ** 2  # both counts from k on
            chances = least - np.append(least[1:], 0.0)
            assert chances @ bounds == pytest.approx(value, abs=1e-3)


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

    def test_whole_numbers_survive_the_bundle_and_the_log(self) -> None:
        # Canonical JSON writes 2.0 as 2, which is read as an integer.
        promises = promises_asked("abstention=0.1@2,exit=shallow@1", share=0.5)
        recipes = [
            SplitRecipe(candidates=10, delta=0.01, promises=promises),
            PosteriorSplitRecipe(candidates=10, delta=0.05, pull=1.0, learning_rate=1.0),
        ]
        for recipe in recipes:
            table = RecipeTable(((16, recipe),))
            written = json.loads(canonical_json(table.to_config()))
            assert RecipeTable.from_config(written) == table

    def test_a_recipe_that_is_read_back_as_another_is_refused(self) -> None:
        class Forgetful(UnionRecipe):
            def to_config(self) -> dict[str, Any]:
                return super().to_config() | {"candidates": 11}

        with pytest.raises(CertificateError, match="read back as another one"):
            RecipeTable(((16, Forgetful(candidates=10, delta=0.05)),))

    def test_there_is_none_below_the_first_threshold(self) -> None:
        message = "no recipe for 15 examples; the smallest support set .* serves has 16"
        with pytest.raises(CertificateError, match=message):
            self.table.recipe_for(15)

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
