"""The inverse of the binary relative entropy: safe, tight, and refusing what it must."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcert.certificates import binomial_upper_bound, bounded_loss_upper_bound
from fedcert.certificates.kl_bounds import (
    kl_upper_inverse,
    kl_upper_inverses,
    pac_bayes_kl,
)
from fedcert.errors import CertificateError

deterministic = settings(derandomize=True, deadline=None, max_examples=200)
exponents = st.floats(0.302, 15)


def likelihood_ratio(errors: int, trials: int, p: float) -> Fraction:
    """Return exp(trials * kl(errors/trials, p)) in rational arithmetic."""
    q, risk = Fraction(errors, trials), Fraction(p)
    if (q > 0 and risk == 0) or (q < 1 and risk == 1):
        return Fraction(10) ** 400
    wrong = (q / risk) ** errors if errors else Fraction(1)
    right = ((1 - q) / (1 - risk)) ** (trials - errors) if errors < trials else Fraction(1)
    return wrong * right


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int]:
    trials = draw(st.integers(1, 200))
    return draw(st.integers(0, trials - 1)), trials


@deterministic
@given(counts(), exponents)
def test_it_is_on_the_safe_side_and_tight(case: tuple[int, int], exponent: float) -> None:
    errors, trials = case
    target = 10.0**exponent
    bound = kl_upper_inverse(errors / trials, math.log(target) / trials)
    assert bound >= errors / trials
    assert bound == 1.0 or likelihood_ratio(errors, trials, bound) >= Fraction(target)
    if (below := bound - 2.1e-6) > errors / trials:
        # 1e-9 for the headroom of 1e-12 in each of at most 200 summands.
        assert likelihood_ratio(errors, trials, below) < Fraction(target * (1 + 1e-9))


@deterministic
@given(counts(), exponents)
def test_it_is_never_tighter_than_the_exact_tail(
    case: tuple[int, int], exponent: float
) -> None:
    budget = 10.0**-exponent
    losses = np.repeat([1.0, 0.0], [case[0], case[1] - case[0]])
    assert (
        bounded_loss_upper_bound(losses, budget) >= binomial_upper_bound(*case, budget) - 1e-6
    )


@deterministic
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 50), st.floats(0, 50))
def test_it_is_monotone(one: float, other: float, near: float, far: float) -> None:
    low, high = sorted((one, other))
    small, large = sorted((near, far))
    assert low <= kl_upper_inverse(low, small) <= kl_upper_inverse(high, small) <= 1
    assert kl_upper_inverse(low, small) <= kl_upper_inverse(low, large)


@deterministic
@given(st.floats(0, 1), st.floats(0, 50), st.integers(1, 500), st.floats(1e-9, 0.5))
def test_pac_bayes_is_monotone(mean: float, kl: float, n: int, delta: float) -> None:
    means, divergences = np.array([mean]), np.array([kl])
    bound = pac_bayes_kl(means, divergences, n, delta)
    assert pac_bayes_kl(means, divergences + 1, n, delta) >= bound
    assert pac_bayes_kl(means, divergences, n, delta / 2) >= bound
    # ln(2 sqrt(n))/n falls from n = 1 on.
    assert pac_bayes_kl(means, divergences, n + 1, delta) <= bound


def test_maurers_constant_holds_for_few_examples_too() -> None:
    for n in range(1, 61):
        # E[exp(n kl(k/n, p))] over k ~ Binomial(n, p) is this sum, whatever p is.
        total = sum(
            math.comb(n, k) * Fraction(k, n) ** k * Fraction(n - k, n) ** (n - k)
            for k in range(n + 1)
        )
        assert total**2 <= 4 * n, n


def test_many_at_once_are_as_one_by_one() -> None:
    rng = np.random.default_rng(0)
    means, divergences = rng.random(50), rng.exponential(0.3, 50)
    each = [kl_upper_inverse(q, c) for q, c in zip(means, divergences, strict=True)]
    assert kl_upper_inverses(means, divergences).tolist() == each


@pytest.mark.parametrize(
    ("mean", "divergence", "bound"),
    [(0.0, 0.0, 0.0), (0.0, math.inf, 1.0), (1.0, 0.0, 1.0), (0.0, math.log(2), 0.5)],
)
def test_the_ends(mean: float, divergence: float, bound: float) -> None:
    assert bound <= kl_upper_inverse(mean, divergence) <= bound + 3e-6


@pytest.mark.parametrize(("mean", "divergence"), [(-0.1, 1.0), (1.1, 1.0), (math.nan, 1.0)])
def test_an_impossible_mean_is_refused(mean: float, divergence: float) -> None:
    with pytest.raises(CertificateError, match=r"must lie in \[0, 1\]"):
        kl_upper_inverse(mean, divergence)


@pytest.mark.parametrize("divergence", [-1e-9, math.nan])
def test_an_impossible_divergence_is_refused(divergence: float) -> None:
    with pytest.raises(CertificateError, match="a divergence must not be negative"):
        kl_upper_inverse(0.1, divergence)


@pytest.mark.parametrize("losses", [[0.1, 1.5], [-0.1], [math.inf], [math.nan, 0.5]])
def test_an_unbounded_loss_is_refused(losses: list[float]) -> None:
    with pytest.raises(CertificateError, match=r"cross-entropy.*Brier"):
        bounded_loss_upper_bound(np.array(losses), 0.05)


@pytest.mark.parametrize("budget", [0.0, 1.0, math.nan])
def test_an_impossible_budget_is_refused(budget: float) -> None:
    with pytest.raises(CertificateError, match="the budget must lie between 0 and 1"):
        bounded_loss_upper_bound(np.array([0.5]), budget)
    with pytest.raises(CertificateError, match="delta must lie between 0 and 1"):
        pac_bayes_kl(np.zeros(1), np.zeros(1), 5, budget)


def test_no_losses_are_refused() -> None:
    with pytest.raises(CertificateError, match=r"must have shape \(m,\), not \(0,\)"):
        bounded_loss_upper_bound(np.zeros(0), 0.05)


def test_the_bound_of_a_graded_loss_covers_its_mean() -> None:
    # A loss of 0, .5, or 1 with known mean, at a risk where the bound is nearly false.
    rng = np.random.default_rng(0)
    mean = 0.25 * 0.5 + 0.05
    draws = rng.choice([0.0, 0.5, 1.0], p=[0.7, 0.25, 0.05], size=(4_000, 60))
    false = sum(bounded_loss_upper_bound(row, 0.05) < mean for row in draws)
    assert 0 < false <= 4_000 * 0.05
