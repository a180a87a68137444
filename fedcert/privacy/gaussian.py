"""The Gaussian mechanism, exactly: what a noise level buys, and what a promise costs.

A release of sensitivity Delta with noise of standard deviation sigma per coordinate is
mu-Gaussian differentially private with mu = Delta / sigma (Dong, Roth, Su,
arXiv 1905.02383), and (epsilon, delta) private exactly when (Balle and Wang,
arXiv 1805.06530, theorem 8)

    Phi(mu / 2 - epsilon / mu) - e^epsilon Phi(-mu / 2 - epsilon / mu) <= delta.

Releases compose exactly: mu^2 adds up. The classical sigma = Delta sqrt(2 ln(1.25 / delta)) /
epsilon holds only for epsilon < 1, and wastes noise there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.optimize import brentq
from scipy.special import log_ndtr

from fedcert.errors import SettingsError

__all__ = ["composed", "delta_of", "epsilon_of", "mu_of"]

# Brackets of the searches; beyond them a promise is absurd.
_SMALLEST_MU, _LARGEST_MU = 1e-8, 1e4
# Moves a root to its safe side; the search itself is accurate to 1e-13.
_SAFETY = 1e-9
# The smaller mu is, the fewer digits are known of the difference of two probabilities that
# nearly agree: the safe side of mu has this much more, over mu.
_ROUNDING = 1e-12


def delta_of(mu: float, epsilon: float) -> float:
    """Return the smallest delta with which mu-Gaussian privacy gives epsilon."""
    if mu == 0:
        return 0.0
    first = float(log_ndtr(mu / 2 - epsilon / mu))
    second = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    # exp(first) - exp(second) without cancellation; the difference is never negative.
    return max(0.0, -math.exp(first) * math.expm1(min(second - first, 0.0)))


def mu_of(epsilon: float, delta: float) -> float:
    """Return the largest mu that keeps an (epsilon, delta) promise.

    Raises
    ------
    SettingsError
        If epsilon is not above 0, or delta not between 0 and 1, or if they are so small that
        float64 does not tell which noise keeps them.
    """
    _check(epsilon, delta)
    small = SettingsError(
        f"epsilon = {epsilon:g} with delta = {delta:g} is too small a promise to compute the "
        "noise for; raise one of them"
    )
    try:
        root = _root(lambda mu: delta_of(mu, epsilon) - delta, _SMALLEST_MU, _LARGEST_MU)
    except RuntimeError:  # where all is rounding the search does not converge
        raise small from None
    mu = root * (1 - _SAFETY - _ROUNDING / root)
    if delta_of(mu, epsilon) > delta:
        raise small
    return mu


def epsilon_of(mu: float, delta: float) -> float:
    """Return the smallest epsilon that mu-Gaussian privacy promises at delta.

    Examples
    --------
    >>> mu = mu_of(epsilon=2.0, delta=1e-5)
    >>> round(epsilon_of(mu, 1e-5), 3)
    2.0
    """
    _check(1.0, delta)
    if delta_of(mu, 0.0) <= delta:
        return 0.0
    # delta falls below e^(-t^2 / 2) at epsilon = mu^2 / 2 + mu t.
    most = mu**2 / 2 + mu * math.sqrt(2 * math.log(1 / delta)) + 1.0
    return _root(lambda epsilon: delta - delta_of(mu, epsilon), 0.0, most) * (1 + _SAFETY)


def composed(*releases: float) -> float:
    """Return the mu of several releases together, each chosen with the others in sight.

    Examples
    --------
    >>> composed(3.0, 4.0)
    5.0
    """
    return math.hypot(*releases)


def _check(epsilon: float, delta: float) -> None:
    if not epsilon > 0 or not math.isfinite(epsilon):
        raise SettingsError(f"epsilon must be above 0, and finite (got {epsilon!r})")
    if not 0 < delta < 1:
        raise SettingsError(f"the privacy delta must lie between 0 and 1 (got {delta!r})")


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    if rising(low) >= 0:
        return low
    if rising(high) <= 0:
        return high
    return float(brentq(rising, low, high, xtol=1e-15, rtol=1e-13))
