"""Choosing by the bound itself, for recipes whose candidates have different weights."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedcert.certificates.bounds import binomial_upper_bounds
from fedcert.certificates.counts import Counts, Selection, lowest

__all__ = ["lowest_bound"]


def lowest_bound(counts: Counts, budgets: npt.NDArray[np.float64]) -> Selection:
    """Certify in every episode the candidate with the lowest bound.

    Fewer errors at a lower weight can give a higher bound, so the lowest count need not win.
    Ties go to the fewer errors, then to the lower loss, then to the lower index.

    Parameters
    ----------
    counts : Counts
        Counts of E episodes and H candidates.
    budgets : numpy.ndarray
        The candidates' shares of delta, shape (E, H).
    """
    errors = counts.certifying
    episodes = np.arange(len(errors))
    # Among candidates with the same count only the largest share can win: for every count
    # at most one bound is to be computed.
    top = np.full((len(errors), counts.certified_on + 1), -1.0)
    np.maximum.at(top, (episodes[:, None], errors), budgets)
    bounds = np.full(top.shape, 2.0)
    rows, counted = np.nonzero(top >= 0)
    bounds[rows, counted] = binomial_upper_bounds(
        counted,
        counts.certified_on,
        top[rows, counted],
        None if counts.numbers is None else counts.numbers[rows],
    )
    best = bounds.argmin(axis=1)
    leads = (errors == best[:, None]) & (budgets == top[episodes, best][:, None])
    index = lowest(np.where(leads, 0, 1), counts.losses)
    return Selection(bounds=bounds[episodes, best], errors=best.astype(np.float64), index=index)
