"""Replays: strict about their tables; and the limit that no method can expect to beat."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from fedcert.certificates import (
    PosteriorSplitRecipe,
    SplitRecipe,
    UnionRecipe,
    binomial_upper_bound,
)
from fedcert.certificates.bounds import binomial_upper_bounds
from fedcert.certificates.replay import (
    ErrorTable,
    Refined,
    ReplayedBound,
    disjoint_parts,
    mean_bound,
    replay,
)
from fedcert.errors import CertificateError
from fedcert.simulations.benchmarks.recipes import limit

from .recipe_suite import random_table

TERMS: dict[str, Any] = {"candidates": 3, "delta": 0.05}


def table_of(wrong: list[str], risks: list[float]) -> ErrorTable:
    array = np.array([[mark == "x" for mark in row] for row in wrong])
    return ErrorTable(wrong=array, losses=array.astype(float), test_risk=np.array(risks))


TABLE = table_of([".x..xxxx", "x...xx..", "xx......"], [0.5, 0.4, 0.1])


def test_a_union_counts_on_all_first_n() -> None:
    expected = ReplayedBound(
        bound=UnionRecipe(**TERMS).bound(1, 4), risk=0.5, errors=1.0, trials=4, index=0
    )
    assert replay(UnionRecipe(**TERMS), TABLE, 4) == expected


def test_a_split_counts_on_the_rest() -> None:
    outcome = replay(SplitRecipe(**TERMS), TABLE, 8)
    assert (outcome.index, outcome.errors, outcome.trials, outcome.risk) == (0, 4.0, 4, 0.5)
    assert outcome.bound == binomial_upper_bound(4, 4, 0.05)


def test_equal_counts_go_to_the_lower_loss_and_then_to_the_lower_index() -> None:
    losses = TABLE.losses.copy()
    losses[1, 3] = -0.25
    outcome = replay(SplitRecipe(**TERMS), replace(TABLE, losses=losses), 8)
    assert (outcome.index, outcome.errors) == (1, 2.0)


def test_refined_candidates_bring_their_own_counts_and_risks() -> None:
    recipe = PosteriorSplitRecipe(**TERMS, finalists=2)
    wrong = np.array([[True, True, False, False], [True, False, False, False]])
    outcome = replay(recipe, TABLE, 8, Refined(wrong=wrong, test_risk=np.array([0.3, 0.2])))
    assert (outcome.index, outcome.risk, outcome.errors) == (1, 0.2, 1.0)
    assert outcome.bound == recipe.bound(1, 4)
    with pytest.raises(CertificateError, match=r"must have shape \(2, 4\), not \(1, 4\)"):
        replay(recipe, TABLE, 8, Refined(wrong=wrong[:1], test_risk=np.array([0.3])))
    with pytest.raises(CertificateError, match="it takes no refined ones"):
        replay(UnionRecipe(**TERMS), TABLE, 8, Refined(wrong=wrong, test_risk=np.zeros(2)))


def test_candidates_beyond_m_are_not_looked_at() -> None:
    table = random_table(30, 20, seed=0)
    cut = ErrorTable(
        wrong=table.wrong[:3], losses=table.losses[:3], test_risk=table.test_risk[:3]
    )
    assert replay(UnionRecipe(**TERMS), table, 20) == replay(UnionRecipe(**TERMS), cut, 20)
    with pytest.raises(CertificateError, match="has 31 candidates, and the table only 30"):
        replay(UnionRecipe(candidates=31, delta=0.05), table, 20)


@pytest.mark.parametrize("n", [1, 3, 5, 6, 12])
def test_the_mean_bound_is_that_of_disjoint_parts(n: int) -> None:
    table, recipe = random_table(3, 12, seed=1), UnionRecipe(**TERMS)
    parts = [slice(start, start + n) for start in range(0, 12, n) if start + n <= 12]
    cut = [
        replace(table, wrong=table.wrong[:, part], losses=table.losses[:, part])
        for part in parts
    ]
    expected = np.mean([replay(recipe, each, n).bound for each in cut])
    assert mean_bound(recipe, table, n) == pytest.approx(expected, abs=1e-12)
    assert disjoint_parts(12, n) == parts


def test_what_is_refined_once_certifies_on_disjoint_parts() -> None:
    recipe = PosteriorSplitRecipe(**TERMS)
    # Four choose, four certify: 1, 3, and 0 errors, and two examples that are left over.
    wrong = np.array([[mark == "x" for mark in "x....xxx....xx"]])
    refined = Refined(wrong=wrong, test_risk=np.zeros(1))
    expected = np.mean([binomial_upper_bound(k, 4, 0.05) for k in (1, 3, 0)])
    assert mean_bound(recipe, TABLE, 8, refined) == pytest.approx(expected)


def test_a_mean_of_equal_bounds_is_never_below_them() -> None:
    table = ErrorTable(
        wrong=np.zeros((3, 200), np.bool_), losses=np.zeros((3, 200)), test_risk=np.zeros(3)
    )
    for n in range(1, 60):
        assert mean_bound(UnionRecipe(**TERMS), table, n) == UnionRecipe(**TERMS).bound(0, n)


@pytest.mark.parametrize("n", [0, 9])
def test_the_mean_of_too_few_examples_is_refused(n: int) -> None:
    with pytest.raises(CertificateError, match="n must be from 1 to the table's 8 examples"):
        mean_bound(UnionRecipe(**TERMS), TABLE, n)


def test_a_mean_moves_less_by_chance_than_a_single_replay() -> None:
    means, singles = [], []
    for seed in range(200):
        table = random_table(3, 240, seed=seed)
        means.append(mean_bound(SplitRecipe(**TERMS), table, 24))
        singles.append(replay(SplitRecipe(**TERMS), table, 24).bound)
    assert np.mean(means) == pytest.approx(np.mean(singles), abs=0.02)
    assert np.std(means) < 0.7 * np.std(singles)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wrong": TABLE.losses}, "wrong must be bool of shape"),
        ({"wrong": TABLE.wrong[0]}, "wrong must be bool of shape"),
        ({"losses": TABLE.losses[:, 1:]}, r"losses must have shape \(3, 8\)"),
        ({"test_risk": np.zeros(2)}, r"test_risk must have shape \(3,\)"),
        ({"test_wrong": TABLE.wrong[:2]}, "test_wrong must have 3 rows, not 2"),
    ],
)
def test_an_ill_shaped_table_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CertificateError, match=message):
        replace(TABLE, **change)


def test_an_ill_shaped_refinement_is_refused() -> None:
    with pytest.raises(CertificateError, match="the refined hypotheses' wrong must be bool"):
        Refined(wrong=TABLE.losses, test_risk=np.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(CertificateError, match="test_risk must have shape"):
        Refined(wrong=TABLE.wrong, test_risk=np.zeros(2))


def test_the_limit_is_the_expectation() -> None:
    assert limit(np.array([0.0]), 64, 0.05) == binomial_upper_bound(0, 64, 0.05)
    assert limit(np.array([1.0]), 64, 0.05) == 1.0
    risks = np.array([0.1, 0.3])
    draws = np.random.default_rng(0).binomial(64, risks, (20_000, 2))
    bounds = np.array([binomial_upper_bound(k, 64, 0.05) for k in range(65)])
    assert limit(risks, 64, 0.05) == pytest.approx(bounds[draws].mean(), abs=2e-3)
    assert risks.mean() < limit(risks, 64, 0.05)
    assert binom.pmf(range(65), 64, 0.1) @ bounds == pytest.approx(limit(risks[:1], 64, 0.05))


@pytest.mark.parametrize("risks", [[], [1.1], [-0.1], [float("nan")], [[0.1]]])
def test_the_limit_refuses_what_is_no_risk(risks: Any) -> None:
    with pytest.raises(CertificateError, match="one or more numbers from 0 to 1"):
        limit(np.array(risks), 64, 0.05)


def test_many_bounds_at_once_are_those_one_by_one() -> None:
    rng = np.random.default_rng(0)
    for trials in (0, 1, 7, 80, 700):
        errors = rng.integers(0, trials + 1, 60)
        budgets = np.concatenate([[0.0, 1e-301, 0.9], 10.0 ** -rng.uniform(0.1, 290, 57)])
        each = [
            binomial_upper_bound(k, trials, budget)
            for k, budget in zip(errors.tolist(), budgets.tolist(), strict=True)
        ]
        assert binomial_upper_bounds(errors, trials, budgets).tolist() == each


@pytest.mark.parametrize(
    ("errors", "budget", "message"),
    [(8, 0.5, "8 errors on 7"), (-1, 0.5, "-1 errors"), (0, 1.0, "budget must be below 1")],
)
def test_many_bounds_at_once_are_as_strict(errors: int, budget: float, message: str) -> None:
    with pytest.raises(CertificateError, match=message):
        binomial_upper_bounds(np.array([2, errors]), 7, np.array([0.1, budget]))
    assert binomial_upper_bounds(np.zeros(0, int), 7, np.zeros(0)).shape == (0,)
