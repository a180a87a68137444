"""What every recipe must satisfy; each variant inherits the suite."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from fractions import Fraction
from typing import Any, ClassVar

import pytest

from fedcert.certificates import WEIGHT_DENOMINATOR, Recipe
from fedcert.errors import CertificateError

each_size = pytest.mark.parametrize("n", [*range(1, 33), 80, 81, 255, 256, 2_000])


class RecipeSuite:
    """Subclass it, set `recipe`, and add what is particular to the variant."""

    recipe: ClassVar[Recipe]

    @each_size
    def test_its_spans_lie_within_the_support_set(self, n: int) -> None:
        for span in (self.recipe.choosing(n), self.recipe.certifying(n)):
            assert 0 <= span.start <= span.stop <= n
            assert len(range(n)[span.as_slice()]) == span.size

    @each_size
    def test_every_example_is_used(self, n: int) -> None:
        spans = (self.recipe.choosing(n), self.recipe.certifying(n))
        assert set().union(*(range(span.start, span.stop) for span in spans)) == set(range(n))

    @each_size
    def test_one_more_example_never_takes_one_from_certifying(self, n: int) -> None:
        assert self.recipe.certifying(n).size <= self.recipe.certifying(n + 1).size

    @each_size
    def test_the_ledger_spends_at_most_delta(self, n: int) -> None:
        entries = self.recipe.ledger(n)
        assert sum(Fraction(entry.delta) for entry in entries) <= Fraction(self.recipe.delta)
        assert all(entry.purpose for entry in entries)

    def test_its_weight_is_a_share_of_the_denominator(self) -> None:
        assert 0 < self.recipe.weight() <= WEIGHT_DENOMINATOR

    @pytest.mark.parametrize("errors", range(0, 41, 5))
    def test_its_bound_falls_as_delta_grows(self, errors: int) -> None:
        looser = replace(self.recipe, delta=2 * self.recipe.delta)
        assert looser.bound(errors, 40) <= self.recipe.bound(errors, 40)

    def test_its_bound_is_one_when_all_are_errors(self) -> None:
        assert self.recipe.bound(40, 40) == 1.0

    @pytest.mark.parametrize("chance", [0.2, 0.5, 0.75, 0.99])
    def test_smallest_n_is_the_smallest(self, chance: float) -> None:
        n = self.recipe.smallest_n(chance)
        certified = [self.recipe.certifying(size).size for size in range(1, n + 1)]
        below = [self.recipe.bound(0, size) < chance for size in certified]
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
        assert set(config) == {"kind", *(field.name for field in fields(self.recipe))}

    def test_defaults_may_be_left_out(self) -> None:
        config = {"kind": self.recipe.kind, "candidates": 7, "delta": 0.1}
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
