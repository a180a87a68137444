"""Upper confidence bounds on a risk from a count of errors, always on the safe side.

Every bound is a multiple of `GRID` = 1e-6 and never below the exact value, so two machines
whose special functions differ in the last bits still agree on it. Third parties recompute
these numbers: the meaning of an existing function must not change.
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_left
from decimal import ROUND_CEILING, Decimal, localcontext
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import betaincc

from fedcert.errors import CertificateError

__all__ = [
    "GRID",
    "WEIGHT_DENOMINATOR",
    "binomial_upper_bound",
    "binomial_upper_bounds",
    "budget_of",
    "chance_of",
    "confidence",
    "hoeffding_upper_bound",
    "uniform_weight",
]

WEIGHT_DENOMINATOR = 2**53
"""Weights are integers over this: floats that should sum to 1 can exceed it."""

_STEPS = 1_000_000
GRID = 1 / _STEPS
"""Distance between two values that a bound can take."""

# betaincc was within 3e-16 (relative) of exact rational arithmetic in 172,000 cases with
# budgets down to 1e-300 (scipy 1.17). The headroom leaves room for a worse build, makes a
# re-check with any decent binomial CDF pass, and for budgets up to 1/2 costs at most one
# grid step.
_HEADROOM = 1e-9

# Below this a double's tail probability nears the subnormal range and loses its digits.
_SMALLEST_BUDGET = 1e-300


def binomial_upper_bound(
    errors: int, trials: int, budget: float, uniform: float = 1.0
) -> float:
    """Bound a risk by inverting the exact binomial tail.

    The bound is the largest p with ``P[Binomial(trials, p) <= errors] >= budget``, rounded
    up: the test set bound of Langford, "Tutorial on Practical Prediction Theory for
    Classification", JMLR 6 (2005).

    With `uniform`, of the outcome ``errors`` itself only that share of its probability counts
    into the tail (Stevens, "Fiducial Limits of the Parameter of a Discontinuous
    Distribution", Biometrika 37, 1950). If it was drawn uniformly from (0, 1] without regard
    to the trials, the bound fails with exactly the probability `budget`, where otherwise it
    fails less often. It is never above the bound without it.

    Parameters
    ----------
    errors : int
        Wrong labels among the trials, from 0 to `trials`.
    trials : int
        Independent labeled examples, 0 or more.
    budget : float
        Probability with which the bound may fail, below 1. At 0 and below, and under
        1e-300, nothing can be promised and the bound is 1.
    uniform : float
        In (0, 1]; 1 does not randomize (default: 1).

    Returns
    -------
    float
        A multiple of 1e-6 in (0, 1] at which the tail, computed in double precision, is
        at most the budget. For budgets up to 1/2 it exceeds the exact inverse by less
        than 2e-6.

    Raises
    ------
    CertificateError
        If a count is not an integer or out of its range, the budget is NaN or not below 1,
        or `uniform` is out of its range.

    Examples
    --------
    Three errors on 64 examples, and a bound that fails once in twenty times at most:

    >>> round(binomial_upper_bound(3, 64, 0.05), 3)
    0.117

    Whoever chose the predictor among 1,000 on the same examples pays for all of them:

    >>> round(binomial_upper_bound(3, 64, 0.05 / 1000), 3)
    0.235
    """
    errors, trials = _checked_counts(errors, trials)
    if not 0 < uniform <= 1:
        raise CertificateError(f"uniform must lie in (0, 1], not {uniform}")
    return _inverted_tail(errors, trials, _checked_budget(budget), float(uniform))


@lru_cache(maxsize=65_536)
def _inverted_tail(errors: int, trials: int, budget: float, uniform: float) -> float:
    if errors == trials or budget < _SMALLEST_BUDGET:
        return 1.0

    def covers(step: int) -> bool:
        # P[Binomial(m, p) <= k] = 1 - I_p(k + 1, m - k). scipy.stats.binom.cdf computes the
        # same but returns 0 for tails of 1e-281 (k = 29, m = 700, p = 0.67454), and
        # betainccinv, the direct inverse, errs on the unsafe side half the time, badly so
        # in the same place, and gives NaN near 1: so we search.
        tail = uniform * float(betaincc(errors + 1, trials - errors, step / _STEPS))
        if errors and uniform < 1:
            below = float(betaincc(errors, trials - errors + 1, step / _STEPS))
            tail += (1 - uniform) * below
        # No data show that p = 0, though a randomized tail may be within the budget there.
        return step > 0 and tail * (1 + _HEADROOM) <= budget

    # The step returned was itself seen to cover, or is the last one, which is p = 1.
    return bisect_left(range(_STEPS), True, key=covers) / _STEPS


def binomial_upper_bounds(
    errors: npt.NDArray[np.integer],
    trials: int,
    budgets: npt.NDArray[np.float64],
    uniforms: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.float64]:
    """Return `binomial_upper_bound` of many counts and budgets at once.

    Parameters
    ----------
    errors : numpy.ndarray
        Error counts, int, shape (E,).
    trials : int
        Examples that each was counted on.
    budgets : numpy.ndarray
        Probability with which each bound may fail, shape (E,).
    uniforms : numpy.ndarray or None
        What randomizes each bound, shape (E,); None for ones (default: None).

    Returns
    -------
    numpy.ndarray
        The bounds, shape (E,), equal to those that `binomial_upper_bound` gives.

    Raises
    ------
    CertificateError
        As in `binomial_upper_bound`.
    """
    if errors.size == 0:
        return np.zeros(0)
    for extreme in (errors.min(), errors.max()):
        _checked_counts(int(extreme), trials)
    _checked_budget(float(budgets.max()))
    drawn = np.ones(errors.shape) if uniforms is None else uniforms
    if not ((drawn > 0) & (drawn <= 1)).all():
        raise CertificateError("every one of uniforms must lie in (0, 1]")
    cases, where = np.unique(
        np.stack([errors.astype(np.float64), budgets, drawn]), axis=1, return_inverse=True
    )
    counts, shares, _ = cases
    open_cases = (counts < trials) & (shares >= _SMALLEST_BUDGET)
    steps = np.full(counts.shape, _STEPS)
    steps[open_cases] = _bisected(cases[:, open_cases], trials)
    bounds: npt.NDArray[np.float64] = (steps / _STEPS)[where.reshape(-1)]
    return bounds


def _bisected(cases: npt.NDArray[np.float64], trials: int) -> npt.NDArray[np.int64]:
    # bisect_left of `_inverted_tail`, step by step, so that both end on the same step.
    counts, budgets, uniforms = cases
    low = np.zeros(counts.shape, dtype=np.int64)
    high = np.full(counts.shape, _STEPS)
    counted = (counts > 0) & (uniforms < 1)
    while (low < high).any():
        middle = (low + high) // 2
        tails = uniforms * betaincc(counts + 1, trials - counts, middle / _STEPS)
        below = betaincc(
            counts[counted], trials - counts[counted] + 1, middle[counted] / _STEPS
        )
        tails[counted] += (1 - uniforms[counted]) * below
        covers = (middle > 0) & (tails * (1 + _HEADROOM) <= budgets) & (low < high)
        high = np.where(covers, middle, high)
        low = np.where(covers | (low >= high), low, middle + 1)
    return low


def hoeffding_upper_bound(errors: int, trials: int, budget: float) -> float:
    """Bound a risk by Hoeffding's inequality, as STEEL was published.

    The bound is ``errors / trials + sqrt(ln(1 / budget) / (2 * trials))``, Rezk et al.,
    "Model Diffusion for Certifiable Few-shot Transfer Learning", arXiv 2502.06970, Eq. 3
    with ``budget = delta / M``. It is never tighter than `binomial_upper_bound`.

    Parameters
    ----------
    errors, trials, budget
        As in `binomial_upper_bound`.

    Returns
    -------
    float
        A multiple of 1e-6, rounded up, at most 1.

    Raises
    ------
    CertificateError
        As in `binomial_upper_bound`.

    Examples
    --------
    >>> round(hoeffding_upper_bound(3, 64, 0.05), 3)
    0.2
    >>> hoeffding_upper_bound(3, 64, 0.05) > binomial_upper_bound(3, 64, 0.05)
    True
    """
    errors, trials = _checked_counts(errors, trials)
    budget = _checked_budget(budget)
    if errors == trials or budget < _SMALLEST_BUDGET:
        return 1.0
    # Decimal arithmetic is correctly rounded on every platform; libm's log is not.
    with localcontext() as context:
        context.prec = 50
        slack = (-Decimal(budget).ln() / (2 * trials)).sqrt()
        value = Decimal(errors) / trials + slack + Decimal("1e-12")
        steps = (value * _STEPS).to_integral_value(rounding=ROUND_CEILING)
    return min(int(steps), _STEPS) / _STEPS


def uniform_weight(candidates: int) -> int:
    """Return the integer weight of one of `candidates` equally weighted ones.

    Returns
    -------
    int
        ``floor(2**53 / candidates)``, so that all weights together are at most 2**53.

    Raises
    ------
    CertificateError
        If `candidates` is not an integer from 1 to 2**53.
    """
    candidates = _checked_integer("candidates", candidates)
    if not 1 <= candidates <= WEIGHT_DENOMINATOR:
        raise CertificateError(f"candidates must be from 1 to 2**53, not {candidates}")
    return WEIGHT_DENOMINATOR // candidates


def budget_of(delta: float, weight: int) -> float:
    """Return a candidate's share of delta, ``delta * weight / 2**53``.

    Parameters
    ----------
    delta : float
        Probability with which any certificate of the recipe may fail, in (0, 1).
    weight : int
        The candidate's weight, from 0 to 2**53.

    Returns
    -------
    float
        The largest double that does not exceed the exact product.

    Raises
    ------
    CertificateError
        If an argument is out of its range.

    Examples
    --------
    >>> budget_of(0.05, 2**52)
    0.025
    """
    weight = _checked_integer("weight", weight)
    if not 0 <= weight <= WEIGHT_DENOMINATOR:
        raise CertificateError(f"weight must be from 0 to 2**53, not {weight}")
    if not 0 < delta < 1:
        raise CertificateError(f"delta must lie between 0 and 1, not {delta}")
    exact = Fraction(delta) * weight / WEIGHT_DENOMINATOR
    nearest = float(exact)
    return nearest if Fraction(nearest) <= exact else math.nextafter(nearest, 0.0)


def chance_of(labels: int) -> float:
    """Return the risk of guessing among `labels` labels, ``1 - 1/labels``.

    Raises
    ------
    CertificateError
        If there are fewer than two labels: then there is nothing to guess.
    """
    if labels < 2:
        raise CertificateError(f"there must be two or more labels, not {labels}")
    return 1 - 1 / labels


def confidence(delta: float) -> str:
    """Return ``1 - delta`` in full."""
    # Enough digits for any double: rounding 1 - 1e-30 to 1 would promise too much.
    with localcontext() as context:
        context.prec = 400
        return f"{1 - Decimal(str(delta)):f}"


def _checked_integer(name: str, value: int) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise CertificateError(f"{name} must be an integer, not {value!r}") from None


def _checked_counts(errors: int, trials: int) -> tuple[int, int]:
    errors = _checked_integer("errors", errors)
    trials = _checked_integer("trials", trials)
    if not 0 <= errors <= trials:
        raise CertificateError(f"{errors} errors on {trials} examples cannot be")
    return errors, trials


def _checked_budget(budget: float) -> float:
    if not budget < 1:  # written so that NaN fails
        raise CertificateError(f"the budget must be below 1, not {budget}")
    return float(budget)
