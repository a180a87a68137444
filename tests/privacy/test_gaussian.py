"""The Gaussian mechanism's accounting is exact, and on the safe side."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from fedcert.errors import SettingsError
from fedcert.privacy.gaussian import composed, delta_of, epsilon_of, mu_of

PROMISES = [(e, d) for e in (0.01, 0.5, 1.0, 8.0, 100.0, 2000.0) for d in (1e-12, 1e-5, 0.1)]


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("mu", [0.2, 1.0, 2.5])
def test_delta_is_the_hockey_stick_divergence_of_two_normals(mu: float, epsilon: float) -> None:
    def excess(x: float) -> float:
        return max(0.0, float(norm.pdf(x - mu) - math.exp(epsilon) * norm.pdf(x)))

    # The integrand is zero below this point.
    start = mu / 2 + epsilon / mu
    integral, _ = quad(excess, start, start + 12, epsabs=1e-13)
    assert delta_of(mu, epsilon) == pytest.approx(integral, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(("epsilon", "delta"), PROMISES)
def test_the_largest_mu_keeps_its_promise_and_hardly_more(epsilon: float, delta: float) -> None:
    mu = mu_of(epsilon, delta)
    assert delta_of(mu, epsilon) <= delta
    assert delta_of(mu * (1 + 1e-6), epsilon) > delta
    assert epsilon <= epsilon_of(mu * (1 + 1e-8), delta)
    assert epsilon_of(mu, delta) == pytest.approx(epsilon, rel=1e-6)


@pytest.mark.parametrize(("epsilon", "delta"), [(0.1, 1e-5), (0.5, 1e-5), (0.9, 1e-6)])
def test_it_beats_the_classical_calibration(epsilon: float, delta: float) -> None:
    classical = epsilon / math.sqrt(2 * math.log(1.25 / delta))
    assert 1.05 * classical < mu_of(epsilon, delta) < 2 * classical


def test_known_values() -> None:
    # Balle and Wang's own program gives sigma = 3.730632 for epsilon 1, delta 1e-5.
    assert 1 / mu_of(1.0, 1e-5) == pytest.approx(3.730632, abs=1e-5)
    assert delta_of(1.0, 0.0) == pytest.approx(norm.cdf(0.5) - norm.cdf(-0.5))
    assert delta_of(0.0, 1.0) == 0.0
    assert epsilon_of(1e-9, 1e-5) == 0.0


def test_composition_is_that_of_one_release_in_more_dimensions() -> None:
    assert composed() == 0.0
    assert composed(3.0, 4.0) == pytest.approx(5.0)
    # Never worse than what Renyi accounting (rho-zCDP) allows, and close to it.
    for mu, releases in ((0.5, 1), (0.5, 10), (2.0, 5)):
        rho = releases * mu**2 / 2
        renyi = rho + 2 * math.sqrt(rho * math.log(1e5))
        exact = epsilon_of(composed(*[mu] * releases), 1e-5)
        assert 0.6 * renyi < exact < renyi


def test_an_attacker_cannot_beat_delta() -> None:
    """The best test between two neighbors keeps the promise in a simulation."""
    epsilon, delta = 1.0, 0.05
    mu = mu_of(epsilon, delta)
    draws = np.random.default_rng(0).standard_normal(400_000)
    for threshold in np.linspace(-1, 4, 11):
        hit, false = np.mean(draws + mu > threshold), np.mean(draws > threshold)
        assert hit <= math.exp(epsilon) * false + delta + 0.004
    start = mu / 2 + epsilon / mu
    hit, false = np.mean(draws + mu > start), np.mean(draws > start)
    assert hit - math.exp(epsilon) * false == pytest.approx(delta, abs=0.004)


@pytest.mark.parametrize(
    ("epsilon", "delta"),
    [(0.0, 0.1), (-1.0, 0.1), (math.nan, 0.1), (math.inf, 0.1), (1.0, 0.0), (1.0, 1.0)],
)
def test_impossible_promises_are_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(SettingsError, match="must"):
        mu_of(epsilon, delta)


@pytest.mark.parametrize(("epsilon", "delta"), [(1e-9, 1e-12), (1e-6, 1e-250)])
def test_promises_that_are_too_small_to_compute_are_refused(
    epsilon: float, delta: float
) -> None:
    with pytest.raises(SettingsError, match="too small a promise"):
        mu_of(epsilon, delta)
