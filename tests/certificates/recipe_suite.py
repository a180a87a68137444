"""What every recipe must satisfy; each variant inherits the suite."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import pytest

from fedcert.certificates import WEIGHT_DENOMINATOR, Choice, Recipe, RecipeTable
from fedcert.certificates.replay import ErrorTable, Refined, replay
from fedcert.errors import CertificateError

from .conftest import Issuer

SIZES = (1, 2, 3, 4, 5, 7, 8, 31, 32, 80, 81, 255, 256, 2_000)
"""Where rounding a share up or down makes a difference, and some of each parity."""


class RecipeSuite:
    """Subclass it, set `recipe`, and add what is particular to the variant."""

    recipe: ClassVar[Recipe]
    few: ClassVar[Recipe]
    """The same kind with few candidates, to be played on a small table."""

    def test_its_spans_lie_within_the_support_set(self) -> None:
        for n in SIZES:
            for span in (self.recipe.choosing(n), self.recipe.certifying(n)):
                assert 0 <= span.start <= span.stop <= n
                assert len(range(n)[span.as_slice()]) == span.size

    def test_every_example_is_used(self) -> None:
        for n in SIZES:
            spans = (self.recipe.choosing(n), self.recipe.certifying(n))
            used = set().union(*(range(span.start, span.stop) for span in spans))
            assert used == set(range(n))

    def test_one_more_example_never_takes_one_from_certifying(self) -> None:
        sizes = [self.recipe.certifying(n).size for n in range(1, 300)]
        assert sizes == sorted(sizes)

    def test_the_ledger_spends_at_most_delta(self) -> None:
        for n in SIZES:
            entries = self.recipe.ledger(n)
            spent = sum(Fraction(entry.delta) for entry in entries)
            assert spent <= Fraction(self.recipe.delta), n
            assert all(entry.purpose for entry in entries)

    @pytest.mark.parametrize("chance", [0.2, 0.5, 0.75, 0.99])
    def test_smallest_n_is_the_smallest(self, chance: float) -> None:
        n = self.recipe.smallest_n(chance)
        below = [self.recipe.lowest_bound(size) < chance for size in range(1, n + 1)]
        assert below == [False] * (n - 1) + [True]

    @pytest.mark.parametrize("chance", [0.0, 1.0, -0.5, float("nan")])
    def test_smallest_n_refuses_an_impossible_chance(self, chance: float) -> None:
        with pytest.raises(CertificateError, match="chance must lie between 0 and 1"):
            self.recipe.smallest_n(chance)

    def test_smallest_n_gives_up(self) -> None:
        with pytest.raises(CertificateError, match="no support set of fewer than 1048576"):
            self.recipe.smallest_n(1e-6)

    def test_its_config_makes_an_equal_recipe(self) -> None:
        config = json.loads(json.dumps(self.recipe.to_config()))
        assert Recipe.from_config(config) == self.recipe
        assert config["kind"] == self.recipe.kind
        assert set(config) == {
            "kind", *(field.name for field in fields(self.recipe)),
        } - set(self.recipe.unsaid)  # fmt: skip

    def test_what_it_says_about_attempts_survives(self) -> None:
        recipe = replace(self.recipe, first_share=0.99)
        assert recipe != self.recipe
        assert recipe.to_config() == self.recipe.to_config() | {"first_share": 0.99}
        assert Recipe.from_config(recipe.to_config()) == recipe

    def test_defaults_may_be_left_out(self) -> None:
        config = self.recipe.to_config()
        del config["margin_tolerance"]
        assert Recipe.from_config(config).margin_tolerance == 1e-4

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"candidate": 7}, "has no candidate; it has"),
            ({"kind": "lucky"}, "unknown recipe kind 'lucky'; this version knows .*union"),
            ({"kind": ["union"]}, "unknown recipe kind"),
            ({"candidates": 0}, "candidates must be from 1 to"),
            ({"candidates": 2**53}, "candidates must be from 1 to"),
            ({"candidates": 7.0}, "candidates must be an integer, not 7.0"),
            ({"candidates": True}, "candidates must be an integer, not True"),
            ({"delta": 0}, "delta must lie between 0 and 1, not 0"),
            ({"delta": 1.0}, "delta must lie between 0 and 1, not 1.0"),
            ({"delta": "0.05"}, "delta must be a number, not '0.05'"),
            ({"delta": float("nan")}, "delta must be finite and below"),
            ({"first_share": 1}, "first_share must lie between 0 and 1, not 1"),
            ({"first_share": "0.9"}, "first_share must be a number, not '0.9'"),
            ({"margin_tolerance": -1e-9}, "margin_tolerance must not be negative"),
            ({"margin_tolerance": float("inf")}, "margin_tolerance must be finite"),
            ({"margin_tolerance": 10**400}, "margin_tolerance must be finite"),
        ],
    )
    def test_a_wrong_config_is_refused(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(CertificateError, match=message):
            Recipe.from_config(self.recipe.to_config() | change)

    @pytest.mark.parametrize("key", ["kind", "candidates", "delta"])
    def test_an_incomplete_config_is_refused(self, key: str) -> None:
        config = self.recipe.to_config()
        del config[key]
        with pytest.raises(CertificateError, match=f"also needs {key}|unknown recipe kind"):
            Recipe.from_config(config)

    def test_it_is_frozen_and_usable_as_a_key(self) -> None:
        assert {self.recipe: 1}[replace(self.recipe)] == 1
        with pytest.raises(AttributeError):
            self.recipe.delta = 0.5  # type: ignore[misc]

    def test_its_statement_names_the_numbers(self) -> None:
        statement = self.recipe.statement(80)
        assert str(self.recipe.candidates) in statement
        assert "80" in statement

    def test_only_its_delta_changes_with_an_attempt(self) -> None:
        later = self.recipe.with_delta(0.001)
        assert later.delta == 0.001
        assert replace(later, delta=self.recipe.delta) == self.recipe
        with pytest.raises(CertificateError, match="delta must lie between 0 and 1"):
            self.recipe.with_delta(0.0)

    def test_a_smaller_delta_never_lowers_what_can_be_reached(self) -> None:
        for n in (1, 8, 64, 500):
            tighter = self.recipe.with_delta(self.recipe.delta / 100)
            assert tighter.lowest_bound(n) >= self.recipe.lowest_bound(n)

    @pytest.mark.parametrize("n", [1, 2, 7, 32])
    def test_a_replay_certifies_what_the_recipe_says(self, n: int) -> None:
        table = random_table(self.few.candidates, 32, seed=n)
        outcome = replay(self.few, table, n, refined_for(self.few, table, n))
        assert self.few.lowest_bound(n) <= outcome.bound <= 1
        assert outcome.trials == self._certified_on(outcome.index, n)
        assert 0 <= outcome.errors <= outcome.trials
        assert 0 <= outcome.risk <= 1

    def _certified_on(self, index: int | None, n: int) -> int:
        if index is None:
            return self.few.certifying(n).size
        return self.few.certifies_on(Choice(index=index), n).size

    @pytest.mark.parametrize("n", [0, 33])
    def test_a_replay_needs_a_fitting_n(self, n: int) -> None:
        table = random_table(self.few.candidates, 32, seed=0)
        with pytest.raises(CertificateError, match="n must be from 1 to the table's 32"):
            replay(self.few, table, n)

    def test_a_replay_reads_the_first_n_examples_alone(self) -> None:
        table = random_table(self.few.candidates, 32, seed=1)
        cut = replace(table, wrong=table.wrong[:, :16], losses=table.losses[:, :16])
        refined = refined_for(self.few, table, 16)
        assert replay(self.few, table, 16, refined) == replay(self.few, cut, 16, refined)

    def test_only_a_recipe_for_an_adapter_is_issued(self, make: Issuer) -> None:
        if self.recipe.certifies == "adapter":
            RecipeTable(((1, self.recipe),))
            return
        with pytest.raises(CertificateError, match="no certificate of this kind is issued"):
            make(self.recipe)
        with pytest.raises(CertificateError, match="no certificate of this kind is issued"):
            RecipeTable(((1, self.recipe),))


class WeightSuite(RecipeSuite):
    """For recipes that certify a single hypothesis with a weight; set `choice` if needed."""

    choice: ClassVar[Choice | None] = None

    def test_its_weight_is_a_share_of_the_denominator(self) -> None:
        assert 0 < self.recipe.weight(self.choice) <= WEIGHT_DENOMINATOR

    @pytest.mark.parametrize("errors", range(0, 41, 5))
    def test_its_bound_falls_as_delta_grows(self, errors: int) -> None:
        looser = replace(self.recipe, delta=2 * self.recipe.delta)
        bound = self.recipe.bound(errors, 40, self.choice)
        assert looser.bound(errors, 40, self.choice) <= bound

    def test_its_bound_is_one_when_all_are_errors(self) -> None:
        assert self.recipe.bound(40, 40, self.choice) == 1.0


def random_table(candidates: int, examples: int, *, seed: int) -> ErrorTable:
    """Return candidates of risk .1 to .5 that share what is hard."""
    rng = np.random.default_rng(seed)
    risks = rng.uniform(0.1, 0.5, candidates)
    together = rng.random(examples) < 0.5
    draws = np.where(together, rng.random(examples), rng.random((candidates, examples)))
    wrong = draws < risks[:, None]
    return ErrorTable(
        wrong=wrong,
        losses=wrong + rng.random(wrong.shape),
        test_risk=risks,
        test_wrong=rng.random((candidates, 50)) < risks[:, None],
    )


def refined_for(recipe: Recipe, table: ErrorTable, n: int) -> Refined | None:
    """Return the table's first rows as refined candidates, if the recipe takes such."""
    if not recipe.refines:
        return None
    rows = slice(0, recipe.hypotheses)
    wrong = table.wrong[rows, recipe.certifying(n).as_slice()]
    return Refined(wrong=wrong, test_risk=table.test_risk[rows])
