"""Replaying recipes on a table of right and wrong predictions, and the limit above them all.

For planning and benchmarks: a replay says what a recipe would have certified. Support sets
nest, so one table serves every n. A replay is not a certificate: who picks n or the recipe by
these figures must not certify on the same examples. NumPy and SciPy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.certificates.bounds import binomial_upper_bound
from fedcert.certificates.counts import ErrorTable, Refined
from fedcert.certificates.recipes.base import Recipe
from fedcert.errors import CertificateError

__all__ = ["ErrorTable", "Outcome", "Refined", "limit", "replay"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a recipe would have certified.

    Attributes
    ----------
    bound : float
        The certified risk.
    risk : float
        The risk of what was certified, from the table; NaN where the table cannot tell.
    errors : float
        Errors on the certifying examples; the expected number for a randomized predictor.
    trials : int
        Number of certifying examples.
    index : int or None
        The chosen candidate, or refined candidate; None if no single one is certified.
    """

    bound: float
    risk: float
    errors: float
    trials: int
    index: int | None


def replay(
    recipe: Recipe, table: ErrorTable, n: int, refined: Refined | None = None
) -> Outcome:
    """Play a recipe on the first n examples of a table.

    Parameters
    ----------
    recipe : Recipe
        Of any kind, also one that cannot be issued.
    table : ErrorTable
        Its first ``recipe.candidates`` rows and first n columns are used.
    n : int
        Size of the support set, from 1 to the number of columns.
    refined : Refined or None
        What was made from the choosing examples, on the certifying ones: needed exactly if
        ``recipe.refines`` (default: None).

    Raises
    ------
    CertificateError
        If the table is too small, or `refined` is missing, not needed, or ill-shaped.
    """
    columns = table.wrong.shape[1]
    if not 1 <= n <= columns:
        raise CertificateError(f"n must be from 1 to the table's {columns} examples, not {n}")
    counts, risks = recipe.tabulated(table, n, refined)
    selection = recipe.select(counts)
    return Outcome(
        bound=float(selection.bounds[0]),
        risk=recipe.risk_of(selection, table, risks),
        errors=float(selection.errors[0]),
        trials=counts.certified_on,
        index=None if selection.index is None else int(selection.index[0]),
    )


def limit(risks: npt.NDArray[np.floating[Any]], n: int, delta: float) -> float:
    """Return what certificates would be if the best predictor came for free.

    The mean over clients c, and over k ~ Binomial(n, r_c), of the exact binomial bound from
    k errors on n examples at all of delta; the expectation is summed, not sampled.

    Parameters
    ----------
    risks : numpy.ndarray
        The clients' risks r_c, shape (C,), each in [0, 1].
    n : int
        Examples of each client.
    delta : float
        Probability with which each certificate may fail.

    Raises
    ------
    CertificateError
        If there is no client, a risk is out of range, or as in `binomial_upper_bound`.
    """
    from scipy.stats import binom  # takes half a second, which devices need not wait for

    values = np.asarray(risks, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not ((values >= 0) & (values <= 1)).all():
        raise CertificateError("risks must be one or more numbers from 0 to 1")
    counts = np.arange(n + 1)
    bounds = np.array([binomial_upper_bound(int(k), n, delta) for k in counts])
    return float((binom.pmf(counts, n, values[:, None]) @ bounds).mean())
