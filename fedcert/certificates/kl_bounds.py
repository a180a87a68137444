"""Upper bounds that invert the binary relative entropy, always on the safe side.

kl(q, p) = q ln(q/p) + (1-q) ln((1-q)/(1-p)) is the relative entropy of two coins. Its
inverse bounds the mean of any loss in [0, 1] where the exact binomial tail does not apply:
the mean error of a posterior, or a loss that is not a count.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import rel_entr

from fedcert.certificates.bounds import GRID
from fedcert.errors import CertificateError

__all__ = ["bounded_loss_upper_bound", "kl_upper_inverse", "kl_upper_inverses", "pac_bayes_kl"]

_STEPS = round(1 / GRID)

# rel_entr is accurate to a few units in the last place of each of its two terms, which are
# at most 40 in size here.
_HEADROOM = 1e-12


def kl_upper_inverse(mean: float, divergence: float) -> float:
    """Return the upper end of ``{p >= mean: kl(mean, p) <= divergence}``, rounded up.

    Parameters
    ----------
    mean : float
        q, in [0, 1].
    divergence : float
        Not negative; an infinite one gives 1.

    Returns
    -------
    float
        A multiple of 1e-6 in [0, 1], never below the exact value and above it by less than
        2e-6 plus what a change of 1e-12 in `divergence` makes.

    Raises
    ------
    CertificateError
        If an argument is out of range or NaN.

    Examples
    --------
    >>> round(kl_upper_inverse(0.1, 0.05), 3)
    0.22
    >>> kl_upper_inverse(0.1, float("inf"))
    1.0
    """
    return float(kl_upper_inverses(np.array([mean]), np.array([divergence]))[0])


def kl_upper_inverses(
    means: npt.NDArray[np.float64], divergences: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return `kl_upper_inverse` of many pairs at once, shape (E,)."""
    if not ((means >= 0) & (means <= 1)).all():
        raise CertificateError("a mean loss must lie in [0, 1]")
    if not (divergences >= 0).all():
        raise CertificateError("a divergence must not be negative")
    target = divergences * (1 + _HEADROOM) + _HEADROOM
    low = np.ceil(means * _STEPS).astype(np.int64)
    high = np.full(means.shape, _STEPS)
    while (low < high).any():
        middle = (low + high) // 2
        p = middle / _STEPS
        outside = rel_entr(means, p) + rel_entr(1 - means, 1 - p) >= target
        # kl does not fall from p = mean on; rounding may put the first step below the mean.
        outside &= (p >= means) & (low < high)
        high = np.where(outside, middle, high)
        low = np.where(outside | (low >= high), low, middle + 1)
    return low / _STEPS


def pac_bayes_kl(
    means: npt.NDArray[np.float64],
    divergences: npt.NDArray[np.float64],
    trials: int,
    delta: float,
) -> npt.NDArray[np.float64]:
    """Bound the risk of randomized predictors: PAC-Bayes-kl.

    ``kl(mean, risk) <= (KL(Q, prior) + ln(2 sqrt(n) / delta)) / n`` with probability at
    least 1 - delta, for all posteriors Q at once: Seeger (JMLR 3, 2002) with the constant of
    Maurer ("A Note on the PAC Bayesian Theorem", arXiv cs/0411099, 2004).

    Parameters
    ----------
    means : numpy.ndarray
        The posteriors' mean losses on the n examples, shape (E,), each in [0, 1].
    divergences : numpy.ndarray
        KL(Q, prior) in nats, shape (E,).
    trials : int
        n, at least 1.
    delta : float
        Probability with which the bound may fail, in (0, 1).

    Returns
    -------
    numpy.ndarray
        Multiples of 1e-6, rounded up, shape (E,).

    Raises
    ------
    CertificateError
        If an argument is out of range.
    """
    if trials < 1:
        return np.ones(means.shape)
    if not 0 < delta < 1:
        raise CertificateError(f"delta must lie between 0 and 1, not {delta}")
    price = math.log(2 * math.sqrt(trials)) - math.log(delta)
    return kl_upper_inverses(means, (divergences + price) / trials)


def bounded_loss_upper_bound(losses: npt.NDArray[np.floating[Any]], budget: float) -> float:
    """Bound the expectation of a loss in [0, 1] of one hypothesis fixed beforehand.

    The upper end of ``kl(mean, p) <= ln(1/budget)/m``: Hoeffding, "Probability Inequalities
    for Sums of Bounded Random Variables" (JASA 58, 1963), Theorem 1. It needs no sqrt(m), as
    nothing is averaged over a posterior. For counts `binomial_upper_bound` is tighter.

    Parameters
    ----------
    losses : numpy.ndarray
        The loss on each of m certifying examples, shape (m,).
    budget : float
        Probability with which the bound may fail, in (0, 1).

    Returns
    -------
    float
        A multiple of 1e-6, rounded up.

    Raises
    ------
    CertificateError
        If a loss lies outside [0, 1], as cross-entropy does, or the budget does.
    """
    values = np.asarray(losses, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise CertificateError(f"losses must have shape (m,), not {values.shape}")
    if not ((values >= 0) & (values <= 1)).all():
        raise CertificateError(
            "a loss outside [0, 1] has no such bound: from a sample nobody can tell how "
            "large an unbounded loss, like cross-entropy, gets; use a bounded one (0-1 "
            "errors, half the Brier score), or clip and divide by a constant fixed beforehand"
        )
    if not 0 < budget < 1:
        raise CertificateError(f"the budget must lie between 0 and 1, not {budget}")
    # fsum is exact up to its last rounding, in any order of the losses.
    mean = min(math.fsum(values.tolist()) / values.size * (1 + 1e-15), 1.0)
    return kl_upper_inverse(mean, -math.log(budget) / values.size)
