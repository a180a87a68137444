"""Lower limits, from the upper bounds of what is counted otherwise."""

from __future__ import annotations

from fedcert.certificates.bounds import GRID, binomial_upper_bound

__all__ = ["lower_limit"]


def lower_limit(successes: int, trials: int, budget: float) -> float:
    """Return the lower limit of a probability (Clopper and Pearson, Biometrika 26, 1934).

    Parameters
    ----------
    successes : int
        How often it happened.
    trials : int
        Independent examples.
    budget : float
        Probability with which the limit may fail.

    Returns
    -------
    float
        A multiple of 1e-6, one minus the upper bound of the failures.

    Examples
    --------
    >>> lower_limit(60, 64, 0.05)
    0.86266
    """
    steps = round(1 / GRID)
    return (
        steps - round(binomial_upper_bound(trials - successes, trials, budget) / GRID)
    ) / steps
