"""A bound that goes on falling: the certificate's evidence, continued by spot checks.

The gambler of `fedcert.certificates.monitoring` bets against a risk of at least p instead of
against one of at most B. A risk q below p multiplies his wealth by q/p at an error and by
(1 - q)/(1 - p) otherwise; spread evenly over all q from 0 to p, after K errors on N examples
it is

    M(K, N, p) = I_p(K + 1, N - K + 1) B(K + 1, N - K + 1) / (p^(K + 1) (1 - p)^(N - K)),

with the beta function B and its regularized incomplete form I (Robbins, "Statistical methods
related to the law of the iterated logarithm", Annals of Mathematical Statistics 41, 1970). At
any risk of p or more this is a supermartingale that starts with 1. What it means to begin with
the certifying examples, on which the adapter may have been chosen, is in docs/theory.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betainc, betaln, xlog1py

from fedcert.arrays import FloatArray
from fedcert.certificates.bounds import GRID, WEIGHT_DENOMINATOR
from fedcert.certificates.record import Certificate
from fedcert.errors import CertificateError

__all__ = ["Start", "start_of"]

IntArray = npt.NDArray[np.int64]

_STEPS = round(1 / GRID)
# More than the rounding errors of the beta functions over millions of examples in float64.
_SLACK = 1e-6


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a living bound begins with, fixed when the certificate is issued.

    Parameters
    ----------
    errors, trials : int
        k and m, the counts of the certificate.
    weight : int
        The adapter's weight among all that could have been certified, over 2**53.
    fresh : float
        The part of the stake that goes on the spot checks alone, in [0, 1]: it does not pay
        for the choice. It must not depend on the certifying examples.
    bound : float
        A bound from the certifying examples alone, which fails with probability delta/2.
    delta : float
        Probability with which the living bound is ever false, in (0, 1).
    """

    errors: int
    trials: int
    weight: int
    fresh: float
    bound: float
    delta: float

    def bounds(self, errors: IntArray, trials: IntArray) -> FloatArray:
        """Return the bound after each of several counts of spot checks.

        At all times and counts of one sequence together they are false with probability at
        most delta, so the lowest may be taken.

        Parameters
        ----------
        errors, trials : numpy.ndarray
            Wrong predictions among the spot checks so far, and all of them; int, shape (T,).

        Returns
        -------
        numpy.ndarray
            Multiples of 1e-6, rounded up, at most `bound`; shape (T,).

        Raises
        ------
        CertificateError
            If there are more errors than trials.
        """
        if not ((errors >= 0) & (errors <= trials)).all():
            raise CertificateError("there cannot be more errors than spot checks")
        low = np.ones(errors.shape, dtype=np.int64)
        high = np.full(low.shape, _STEPS)
        needed = math.log(2 / self.delta) + _SLACK
        while (low < high).any():
            middle = (low + high) // 2
            enough = self.log_wealth(errors, trials, middle / _STEPS) >= needed
            open_cases = low < high
            high = np.where(enough & open_cases, middle, high)
            low = np.where(enough | ~open_cases, low, middle + 1)
        return np.minimum(low / _STEPS, self.bound)

    def log_wealth(
        self, errors: IntArray, trials: IntArray, risk: npt.NDArray[np.floating] | float
    ) -> FloatArray:
        """Return the natural logarithm of the evidence against a risk of `risk` or more.

        Of a mixture nothing is counted where the risk is below (K + 1)/(N + 1). It says
        little there, and from there on it grows with the risk, so that what refutes a risk
        refutes all that are higher.

        Parameters
        ----------
        errors, trials : numpy.ndarray
            As in `bounds`.
        risk : float or numpy.ndarray
            Between 0 and 1.

        Returns
        -------
        numpy.ndarray
            Shape (T,); it ever reaches ln(1/alpha) with probability at most alpha.
        """
        share = (1 - self.fresh) * (self.weight / WEIGHT_DENOMINATOR)
        stakes = (
            (share, errors + self.errors, trials + self.trials),
            (self.fresh, errors, trials),
        )
        logs = [
            np.where(risk * (n + 1) < k + 1, -np.inf, math.log(part) + _log_mixture(k, n, risk))
            for part, k, n in stakes
            if part > 0
        ]
        wealth: FloatArray = np.logaddexp.reduce(logs)
        return wealth


def start_of(certificate: Certificate) -> Start:
    """Return what the living bound of a certificate begins with; its delta is the same.

    Raises
    ------
    CertificateError
        If the certificate's recipe contradicts its counts.
    """
    recipe, choice = certificate.recipe, certificate.choice
    weight = recipe.weight(choice)
    # Only what the recipe says beforehand of every choice may decide this.
    alone = recipe.hypotheses == 1
    paid = (
        (recipe.pays_for_choosing(certificate.support_size) and not alone)
        or recipe.has_first_stage
        or weight < WEIGHT_DENOMINATOR
    )
    half = recipe.with_delta(recipe.delta / 2)
    return Start(
        errors=certificate.errors,
        trials=certificate.certified_on,
        weight=weight,
        fresh=0.5 if paid else 0.0,
        bound=half.bound(certificate.errors, certificate.certified_on, choice),
        delta=recipe.delta,
    )


def _log_mixture(
    errors: IntArray, trials: IntArray, risk: npt.NDArray[np.floating] | float
) -> FloatArray:
    """Return ln M(K, N, p); at p = 1 it is infinite, unless all were wrong."""
    k, rest = errors.astype(np.float64), (trials - errors).astype(np.float64)
    with np.errstate(divide="ignore"):
        below = np.log(betainc(k + 1, rest + 1, risk))
    value: FloatArray = (
        below + betaln(k + 1, rest + 1) - (k + 1) * np.log(risk) - xlog1py(rest, -risk)
    )
    return value
