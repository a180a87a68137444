"""Bounds: on the safe side, tight, monotone, and equal to the published numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betainccinv
from scipy.stats import binom

from fedcert.certificates import (
    WEIGHT_DENOMINATOR,
    binomial_upper_bound,
    budget_of,
    hoeffding_upper_bound,
    uniform_weight,
)
from fedcert.certificates.bounds import binomial_upper_bounds, chance_of
from fedcert.errors import CertificateError

from .exact import exact_tail

Bound = Callable[[int, int, float], float]
Counts = tuple[int, int]

BOUNDS = [binomial_upper_bound, hoeffding_upper_bound]
each_bound = pytest.mark.parametrize("bound_of", BOUNDS)
deterministic = settings(derandomize=True, deadline=None, max_examples=200)


@st.composite
def counts(draw: st.DrawFn, largest: int = 300) -> tuple[int, int]:
    trials = draw(st.integers(1, largest))
    return draw(st.integers(0, trials - 1)), trials


# Half of the budgets are everyday ones, half go down to the last supported decade.
budgets = st.one_of(st.floats(0.302, 15), st.floats(15, 299)).map(lambda x: 10.0**-x)


@deterministic
@given(counts(), budgets)
def test_the_exact_tail_at_the_bound_is_within_the_budget(case: Counts, budget: float) -> None:
    bound = binomial_upper_bound(*case, budget)
    assert exact_tail(*case, bound) <= Fraction(budget)
    assert binom.cdf(*case, bound) <= budget


fewer = settings(deterministic, max_examples=60)
uniforms = st.one_of(st.floats(1e-6, 1), st.sampled_from([2**-53, 0.1, 0.5, 1.0]))


def randomized_tail(errors: int, trials: int, p: float, uniform: float) -> Fraction:
    below = exact_tail(errors - 1, trials, p) if errors else Fraction(0)
    share = Fraction(uniform)
    return (1 - share) * below + share * exact_tail(errors, trials, p)


@fewer
@given(counts(), budgets, uniforms)
def test_the_randomized_tail_at_the_bound_is_within_the_budget(
    case: Counts, budget: float, uniform: float
) -> None:
    bound = binomial_upper_bound(*case, budget, uniform)
    assert randomized_tail(*case, bound, uniform) <= Fraction(budget)
    assert 0 < bound <= binomial_upper_bound(*case, budget)


@fewer
@given(counts(), budgets, uniforms)
def test_two_steps_below_the_randomized_bound_the_budget_is_exceeded(
    case: Counts, budget: float, uniform: float
) -> None:
    bound = binomial_upper_bound(*case, budget, uniform)
    if bound > 2e-6:
        assert randomized_tail(*case, bound - 2e-6, uniform) > Fraction(budget)


@fewer
@given(counts(), budgets, uniforms, uniforms)
def test_a_larger_number_never_lowers_the_randomized_bound(
    case: Counts, budget: float, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    bounds = [binomial_upper_bound(*case, budget, u) for u in (low, high, 1.0)]
    assert bounds == sorted(bounds)
    assert bounds[-1] == binomial_upper_bound(*case, budget)


def test_a_randomized_bound_is_never_zero() -> None:
    assert binomial_upper_bound(0, 40, 0.3, 0.1) == 1e-6
    assert binomial_upper_bound(40, 40, 0.3, 0.1) == 1.0


@pytest.mark.parametrize("uniform", [0.0, -0.1, 1.0000001, float("nan")])
def test_a_number_outside_of_its_range_is_refused(uniform: float) -> None:
    with pytest.raises(CertificateError, match=r"uniforms? must lie in \(0, 1\]"):
        binomial_upper_bound(1, 10, 0.05, uniform)
    with pytest.raises(CertificateError, match=r"uniforms must lie in \(0, 1\]"):
        binomial_upper_bounds(np.array([1]), 10, np.array([0.05]), np.array([uniform]))


@fewer
@given(st.integers(1, 60), st.data())
def test_many_randomized_bounds_at_once_are_the_same(trials: int, data: st.DataObject) -> None:
    size = 20
    errors = np.array(data.draw(st.lists(st.integers(0, trials), min_size=size, max_size=size)))
    shares = np.array(data.draw(st.lists(budgets, min_size=size, max_size=size)))
    drawn = np.array(data.draw(st.lists(uniforms, min_size=size, max_size=size)))
    together = binomial_upper_bounds(errors, trials, shares, drawn)
    alone = [
        binomial_upper_bound(int(k), trials, share, u)
        for k, share, u in zip(errors, shares, drawn, strict=True)
    ]
    assert together.tolist() == alone


@deterministic
@given(counts(), budgets)
def test_two_steps_below_the_bound_the_budget_is_exceeded(case: Counts, budget: float) -> None:
    bound = binomial_upper_bound(*case, budget)
    assert exact_tail(*case, max(bound - 2e-6, 0.0)) > Fraction(budget)


@pytest.mark.parametrize("exponent", range(1, 16))
def test_every_small_case_is_safe_and_tight(exponent: int) -> None:
    budget = 10.0**-exponent
    for trials in range(1, 13):
        for errors in range(trials):
            bound = binomial_upper_bound(errors, trials, budget)
            assert exact_tail(errors, trials, bound) <= Fraction(budget)
            assert exact_tail(errors, trials, bound - 2e-6) > Fraction(budget)


def test_a_grid_point_that_meets_the_budget_only_after_rounding_is_passed_over() -> None:
    # 1 - 0.95 is 0.05 on paper; as doubles, the tail at 0.95 exceeds the budget 0.05.
    assert exact_tail(0, 1, 0.95) > Fraction(0.05)
    assert binomial_upper_bound(0, 1, 0.05) == 0.950001


@deterministic
@given(counts(), st.floats(0.302, 60).map(lambda x: 10.0**-x))
def test_it_agrees_with_the_direct_inverse(case: Counts, budget: float) -> None:
    errors, trials = case
    inverse = float(betainccinv(errors + 1, trials - errors, budget))
    assert -1e-12 < binomial_upper_bound(errors, trials, budget) - inverse < 2e-6


@pytest.mark.parametrize(
    ("errors", "exact", "published"),
    [(0, 0.149, 0.284), (8, 0.324, 0.384), (16, 0.450, 0.484)],
)
def test_published_numbers_for_80_examples_and_20_000_candidates(
    errors: int, exact: float, published: float
) -> None:
    budget = budget_of(0.05, uniform_weight(20_000))
    assert round(binomial_upper_bound(errors, 80, budget), 3) == exact
    assert round(hoeffding_upper_bound(errors, 80, budget), 3) == published


@pytest.mark.parametrize(("errors", "bound"), [(0, 0.072), (4, 0.214), (8, 0.332)])
def test_published_numbers_for_half_of_80_examples(errors: int, bound: float) -> None:
    assert round(binomial_upper_bound(errors, 40, 0.05), 3) == bound


@each_bound
@deterministic
@given(case=counts(), budget=budgets)
def test_a_bound_lies_on_the_grid(bound_of: Bound, case: Counts, budget: float) -> None:
    bound = bound_of(*case, budget)
    assert 0 < bound <= 1
    assert round(bound * 1e6) / 1e6 == bound


@each_bound
@deterministic
@given(case=counts(), budget=budgets)
def test_more_errors_never_lower_it(bound_of: Bound, case: Counts, budget: float) -> None:
    errors, trials = case
    assert bound_of(errors, trials, budget) <= bound_of(errors + 1, trials, budget)


@each_bound
@deterministic
@given(case=counts(), budget=budgets)
def test_more_trials_never_raise_it(bound_of: Bound, case: Counts, budget: float) -> None:
    errors, trials = case
    assert bound_of(errors, trials, budget) >= bound_of(errors, trials + 1, budget)


@each_bound
@deterministic
@given(case=counts(), pair=st.tuples(budgets, budgets))
def test_a_larger_budget_never_raises_it(
    bound_of: Bound, case: Counts, pair: tuple[float, float]
) -> None:
    assert bound_of(*case, min(pair)) >= bound_of(*case, max(pair))


@each_bound
@deterministic
@given(
    case=counts(),
    delta=st.floats(1e-9, 0.5),
    pair=st.tuples(st.integers(1, 10**9), st.integers(1, 10**9)),
)
def test_more_candidates_never_lower_it(
    bound_of: Bound, case: Counts, delta: float, pair: tuple[int, int]
) -> None:
    few, many = (budget_of(delta, uniform_weight(m)) for m in sorted(pair))
    assert bound_of(*case, few) <= bound_of(*case, many)


@each_bound
@pytest.mark.parametrize("budget", [0.0, -1.0, -math.inf, 5e-324, 9e-301])
def test_it_is_one_without_a_usable_budget(bound_of: Bound, budget: float) -> None:
    assert bound_of(0, 10**9, budget) == 1.0


@each_bound
@pytest.mark.parametrize("trials", [0, 1, 2, 80, 10**6])
def test_it_is_one_when_all_are_errors(bound_of: Bound, trials: int) -> None:
    assert bound_of(trials, trials, 0.05) == 1.0


@each_bound
def test_it_takes_the_integers_of_numpy(bound_of: Callable[..., float]) -> None:
    assert bound_of(np.int64(3), np.int32(80), 0.05) == bound_of(3, 80, 0.05)


@each_bound
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 5, 0.05), "-1 errors on 5 examples cannot be"),
        ((6, 5, 0.05), "6 errors on 5 examples cannot be"),
        ((1.0, 5, 0.05), "errors must be an integer, not 1.0"),
        ((1, "5", 0.05), "trials must be an integer, not '5'"),
        ((1, 5, 1.0), "the budget must be below 1, not 1.0"),
        ((1, 5, math.nan), "the budget must be below 1, not nan"),
    ],
)
def test_impossible_arguments_are_refused(
    bound_of: Callable[..., float], arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(CertificateError, match=f"^{message}$"):
        bound_of(*arguments)


@deterministic
@given(counts(), budgets)
def test_hoeffding_is_its_formula_and_never_tighter(case: Counts, budget: float) -> None:
    errors, trials = case
    formula = errors / trials + math.sqrt(math.log(1 / budget) / (2 * trials))
    bound = hoeffding_upper_bound(errors, trials, budget)
    assert -1e-13 < bound - min(formula, 1.0) < 1.1e-6
    assert bound >= binomial_upper_bound(errors, trials, budget)


@deterministic
@given(st.floats(1e-300, 0.999), st.integers(1, WEIGHT_DENOMINATOR))
def test_a_share_of_delta_is_rounded_toward_zero(delta: float, weight: int) -> None:
    exact = Fraction(delta) * weight / WEIGHT_DENOMINATOR
    share = budget_of(delta, weight)
    assert Fraction(share) <= exact < Fraction(math.nextafter(share, 1.0))


@deterministic
@given(st.floats(1e-9, 0.5), st.integers(1, 10**9))
def test_all_shares_together_are_at_most_delta(delta: float, candidates: int) -> None:
    weight = uniform_weight(candidates)
    assert candidates * weight <= WEIGHT_DENOMINATOR
    assert candidates * Fraction(budget_of(delta, weight)) <= Fraction(delta)


@pytest.mark.parametrize("candidates", [0, -1, WEIGHT_DENOMINATOR + 1])
def test_no_weight_for_impossible_numbers_of_candidates(candidates: int) -> None:
    with pytest.raises(CertificateError, match=r"candidates must be from 1 to 2\*\*53"):
        uniform_weight(candidates)


@pytest.mark.parametrize(
    ("delta", "weight", "message"),
    [
        (0.0, 1, "delta must lie between 0 and 1, not 0.0"),
        (1.0, 1, "delta must lie between 0 and 1, not 1.0"),
        (math.nan, 1, "delta must lie between 0 and 1, not nan"),
        (0.05, WEIGHT_DENOMINATOR + 1, r"weight must be from 0 to 2\*\*53"),
        (0.05, -1, r"weight must be from 0 to 2\*\*53"),
    ],
)
def test_no_share_for_impossible_arguments(delta: float, weight: int, message: str) -> None:
    with pytest.raises(CertificateError, match=message):
        budget_of(delta, weight)


def test_chance() -> None:
    assert chance_of(2) == 0.5
    with pytest.raises(CertificateError, match="there must be two or more labels, not 1"):
        chance_of(1)
