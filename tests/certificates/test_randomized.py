"""Bounds that take a number from the seed: whose number it is, and that they hold exactly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from fedcert.certificates import (
    Certificate,
    Choice,
    HybridRecipe,
    MixedUnionRecipe,
    PosteriorSplitRecipe,
    Recipe,
    SplitRecipe,
    SteelRecipe,
    UnionRecipe,
    WeightedUnionRecipe,
    binomial_upper_bound,
    verify_record,
)
from fedcert.certificates.attempts import FIRST_SHARE, attempt_delta
from fedcert.certificates.counts import Counts
from fedcert.certificates.randomized import EVENLY, LEAST, number_of
from fedcert.certificates.receipt import IssuedSeed, SeedReceipt
from fedcert.certificates.replay import ErrorTable, mean_bound, replay
from fedcert.errors import CertificateError
from fedcert.records.signing import key_from_seed, public_hex
from fedcert.simulations.benchmarks.episodes import SIZE, Case, excess, false_certificates
from fedcert.simulations.benchmarks.recipes import VoteRecipe

from .conftest import KEY, Issuer
from .recipe_suite import random_table, refined_for

SERVER = key_from_seed(b"s" * 32)
SEED = "0123456789abcdef" * 4
BLESSED = Path(__file__).parent / "blessed" / "second-words" / "randomized.json"
TERMS: dict[str, Any] = {"candidates": 20, "delta": 0.05, "randomized": True}
RECIPES: tuple[Recipe, ...] = (
    UnionRecipe(**TERMS),
    WeightedUnionRecipe(**TERMS),
    MixedUnionRecipe(**TERMS, constants=3),
    SplitRecipe(**TERMS),
    PosteriorSplitRecipe(**TERMS, finalists=3),
    HybridRecipe(**TERMS, beta=0.5),
)
each_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.kind)


def receipt_for(recipe: Recipe, seed: str = SEED) -> SeedReceipt:
    """Return a server's receipt for the first attempt of `conftest.Issuer`."""
    unsigned = SeedReceipt(
        attempt=1,
        commitment="a0" * 32,
        granted=0.05,
        server=public_hex(SERVER),
        signature="",
    )
    issued = IssuedSeed(
        client="client-7",
        public_key=public_hex(KEY),
        bundle="b0" * 32,
        recipe=recipe,
        support_size=80,
        seed=seed,
        receipt=unsigned,
    )
    return issued.signed(SERVER).receipt


def first_attempt() -> UnionRecipe:
    delta = attempt_delta(0.05, 1, FIRST_SHARE)
    return UnionRecipe(candidates=20_000, delta=delta, first_share=FIRST_SHARE, randomized=True)


# The number


def test_the_number_is_uniform_but_for_its_floor() -> None:
    numbers = np.array([number_of(f"{seed:064x}") for seed in range(4_000)])
    assert numbers.min() == LEAST
    assert numbers.max() <= 1
    for point in (0.2, 0.5, 0.9):
        below = int((numbers < point).sum())
        assert 1e-4 < binom.cdf(below, len(numbers), point) < 1 - 1e-4
    assert number_of(SEED) == number_of(SEED)


def test_the_number_of_a_seed_never_changes() -> None:
    # Certificates are computed again from it.
    assert number_of(SEED) == 0.8226520372965808
    assert number_of("00" * 32) == 0.3460878805800429


def test_the_numbers_to_plan_with_have_its_mean() -> None:
    # A number below the floor, once in ten times, becomes the floor.
    assert np.mean(EVENLY) == pytest.approx(0.1 * 0.1 + 0.9 * 0.55)


# Recipes


@each_recipe
def test_it_is_said_only_where_it_is_so(recipe: Recipe) -> None:
    assert recipe.to_config()["randomized"] is True
    assert Recipe.from_config(json.loads(json.dumps(recipe.to_config()))) == recipe
    plain = recipe.unwitnessed()
    assert not plain.randomized
    assert "randomized" not in plain.to_config()
    assert replace(plain, randomized=True) == recipe


@pytest.mark.parametrize("kind", [SteelRecipe, VoteRecipe])
def test_other_bounds_cannot_be_randomized(kind: type[Recipe]) -> None:
    with pytest.raises(CertificateError, match="cannot be randomized"):
        kind(candidates=5, delta=0.05, randomized=True)


@pytest.mark.parametrize("value", [1, "true", None])
def test_it_is_true_or_false(value: Any) -> None:
    with pytest.raises(CertificateError, match="randomized must be true or false"):
        UnionRecipe(candidates=5, delta=0.05, randomized=value)


@each_recipe
@pytest.mark.parametrize("number", [LEAST, 0.37, 1.0])
def test_a_replay_certifies_what_the_recipe_says(recipe: Recipe, number: float) -> None:
    table = random_table(20, 32, seed=3)
    refined = refined_for(recipe, table, 32)
    outcome = replay(recipe, table, 32, refined, number=number)
    plain = replay(recipe.unwitnessed(), table, 32, refined)
    assert recipe.lowest_bound(32) <= outcome.bound <= plain.bound
    if number == 1:
        assert outcome == plain


def test_one_bound_at_a_time_is_many_at_once() -> None:
    recipe = SplitRecipe(**TERMS)
    numbers = np.array([0.1, 0.4, 1.0])
    errors = np.array([[3], [0], [7]])
    counts = Counts(
        choosing=errors, certifying=errors, losses=np.zeros((3, 1)),
        chosen_on=20, certified_on=20, numbers=numbers,
    )  # fmt: skip
    alone = [
        recipe.bound(int(k), 20, Choice(index=0, number=u))
        for [k], u in zip(errors, numbers, strict=True)
    ]
    assert recipe.select(counts).bounds.tolist() == alone
    assert alone[2] == recipe.unwitnessed().bound(7, 20)


def test_a_number_does_not_move_a_bound_that_is_not_randomized() -> None:
    plain = SplitRecipe(candidates=20, delta=0.05)
    assert plain.bound(3, 20, Choice(index=0, number=0.1)) == plain.bound(3, 20)
    assert plain.number_of(SEED) == 1


@each_recipe
def test_a_plan_expects_the_mean_over_the_numbers(recipe: Recipe) -> None:
    table = random_table(20, 32, seed=4)
    refined = refined_for(recipe, table, 32)
    bounds = [replay(recipe, table, 32, refined, number=u).bound for u in EVENLY]
    if recipe.refines:
        assert mean_bound(recipe, table, 32, refined) == pytest.approx(np.mean(bounds))
    else:
        assert mean_bound(recipe, table, 32) == pytest.approx(np.mean(bounds))
    assert np.mean(bounds) < replay(recipe.unwitnessed(), table, 32, refined).bound


# Certificates


def test_a_randomized_certificate_says_so_and_verifies(make: Issuer) -> None:
    recipe = first_attempt()
    certificate = make(recipe, protocol=receipt_for(recipe))
    number = number_of(SEED)
    assert verify_record(certificate, public_key=public_hex(KEY)).passed
    assert Certificate.from_json(certificate.to_json()) == certificate
    assert certificate.bound == binomial_upper_bound(3, 80, recipe.budget(), number)
    assert certificate.bound < recipe.unwitnessed().bound(3, 80)
    assert f"a random number drawn with the seed: {number!r}" in certificate.statement
    assert "never one above the bound without such a number" in certificate.statement
    assert certificate.ledger[-1].delta == 0.0
    assert "random number" in certificate.ledger[-1].purpose
    assert certificate.to_object()["recipe"]["randomized"] is True


def test_certificates_of_earlier_versions_verify(make: Issuer) -> None:
    blessed = Certificate.read(BLESSED)
    assert verify_record(blessed).passed
    recipe = first_attempt()
    again = make(recipe, protocol=receipt_for(recipe))
    again = replace(again, library=blessed.library, assumptions=blessed.assumptions)
    assert again.payload() == blessed.payload()


def test_no_server_no_random_number(make: Issuer) -> None:
    with pytest.raises(CertificateError, match="randomized by a seed that no server issued"):
        make(UnionRecipe(candidates=20_000, delta=0.05, randomized=True))


def test_the_number_is_the_seed_s(make: Issuer) -> None:
    recipe = first_attempt()
    certificate = make(recipe, protocol=receipt_for(recipe))
    lucky = next(s for i in range(100) if number_of(s := f"{i:064x}") == LEAST)
    other = replace(certificate, candidate=replace(certificate.candidate, seed=lucky))
    failed = {check.name for check in verify_record(other).failures}
    assert {"bound", "witness", "statement"} <= failed


def test_a_bound_by_another_number_does_not_verify(make: Issuer) -> None:
    recipe = first_attempt()
    certificate = make(recipe, protocol=receipt_for(recipe))
    lucky = binomial_upper_bound(3, 80, recipe.budget(), LEAST)
    forged = replace(certificate, bound=lucky)
    assert "bound" in {check.name for check in verify_record(forged).failures}
    plain = replace(certificate, recipe=recipe.unwitnessed())
    assert "witness" in {check.name for check in verify_record(plain).failures}


# Validity


def at(risk: float) -> Case:
    return Case("tied", lambda _recipe, count: np.full(count, risk))


@each_recipe
@pytest.mark.parametrize("risk", [0.08, 0.3, 0.6])
def test_no_more_than_delta_are_false(recipe: Recipe, risk: float) -> None:
    false = int(false_certificates(recipe, at(risk), 2_000, seed=5).sum())
    assert excess(false, 2_000, recipe.delta) >= 1e-4


def exact_rate(risk: float, trials: int, budget: float) -> float:
    """Return how often a randomized bound of one hypothesis is false, summed."""
    tails = binom.cdf(np.arange(trials + 1), trials, risk)
    count = int(np.searchsorted(tails, budget, side="left"))
    below = tails[count - 1] if count else 0.0
    share = (budget - below) / (tails[count] - below)
    # Numbers below the floor are raised to it: where they would all do, none does.
    return float(budget if share > LEAST else below)


@pytest.mark.parametrize("risk", [0.17, 0.25, 0.31, 0.45, 0.62])
def test_exactly_delta_are_false(risk: float) -> None:
    recipe = SplitRecipe(**TERMS)
    assert exact_rate(risk, SIZE // 2, recipe.delta) == recipe.delta
    false = int(false_certificates(recipe, at(risk), 10_000, seed=6).sum())
    assert 1e-4 < binom.cdf(false, 10_000, recipe.delta) < 1 - 1e-4
    plain = int(false_certificates(recipe.unwitnessed(), at(risk), 10_000, seed=6).sum())
    assert plain < false - 50


def test_at_most_risks_nothing_is_lost_to_whole_numbers() -> None:
    rates = [exact_rate(risk, 20, 0.05) for risk in np.linspace(0.15, 0.9, 200)]
    assert np.mean(rates) > 0.0485


# What it gains

EXPECTED = {  # half split, risks .05, .1, .2, .3
    "plain": {
        16: (0.374, 0.431, 0.537, 0.632), 32: (0.242, 0.307, 0.424, 0.530),
        64: (0.164, 0.230, 0.349, 0.457), 128: (0.120, 0.183, 0.299, 0.407),
    },
    "randomized": {
        16: (0.298, 0.363, 0.480, 0.583), 32: (0.201, 0.271, 0.394, 0.502),
        64: (0.144, 0.212, 0.333, 0.442), 128: (0.110, 0.175, 0.291, 0.399),
    },
}  # fmt: skip


@pytest.mark.parametrize("n", [16, 32, 64, 128])
def test_it_gains_what_was_computed_apart(n: int) -> None:
    trials = n // 2
    # Finely, since few errors make the bound's mean over the numbers curved.
    numbers = np.maximum((np.arange(100) + 0.5) / 100, LEAST)
    for name, drawn in (("plain", np.ones(1)), ("randomized", numbers)):
        bounds = [
            np.mean([binomial_upper_bound(k, trials, 0.05, float(u)) for u in drawn])
            for k in range(trials + 1)
        ]
        for risk, expected in zip((0.05, 0.1, 0.2, 0.3), EXPECTED[name][n], strict=True):
            found = binom.pmf(np.arange(trials + 1), trials, risk) @ bounds
            assert found == pytest.approx(expected, abs=1e-3)


def test_the_table_of_one_client_is_read_alike() -> None:
    table = ErrorTable(
        wrong=np.zeros((20, 16), dtype=np.bool_),
        losses=np.zeros((20, 16)),
        test_risk=np.zeros(20),
    )
    recipe = UnionRecipe(**TERMS)
    assert replay(recipe, table, 16, number=0.25).bound == binomial_upper_bound(
        0, 16, recipe.budget(), 0.25
    )
