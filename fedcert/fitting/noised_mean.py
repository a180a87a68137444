"""A pool's default adapter under central differential privacy."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedcert.arrays import FloatArray
from fedcert.errors import RefusalError
from fedcert.priors import PointPrior
from fedcert.privacy import MeanPrivacy
from fedcert.privacy.gaussian import composed, epsilon_of

__all__ = ["noised_mean"]

# Composed promises are equal to a budget up to the rounding of the searches behind them.
_SLACK = 1 + 1e-6


def noised_mean(
    pool: FloatArray,
    *,
    privacy: MeanPrivacy,
    budget: float,
    before: tuple[float, ...],
    generator: np.random.Generator,
    trunk: float = 0.0,
) -> tuple[PointPrior, dict[str, Any]]:
    """Make the prior of a bundle that holds a noised mean, and what its notes say.

    Nothing is screened or audited, since what that decides or finds would be a release of its
    own: no upload moves the mean by more than its noise hides. The notes hold the number of
    adapters, and no other figure of the pool.

    Parameters
    ----------
    pool : numpy.ndarray
        The adapters, one a client, shape ``(N, d)``.
    privacy : MeanPrivacy
        The promise of this mean.
    budget : float
        Largest epsilon of all means that are published from the pool together, the warm start
        included.
    before : tuple of float
        mu of those that are published already.
    generator : numpy.random.Generator
        Secret: draws the noise.
    trunk : float (default: 0)
        mu of the warm start that the same clients trained the base model in.

    Returns
    -------
    tuple
        The prior, and the notes.

    Raises
    ------
    RefusalError
        If one more mean would exceed the budget.
    """
    together = epsilon_of(composed(trunk, *before, privacy.mu), privacy.delta)
    if together > budget * _SLACK:
        warm = ", with that of the warm start," if trunk else ""
        raise RefusalError(
            f"{len(before)} noised means of this pool have been published; with one more their "
            f"epsilon{warm} would be {together:.3g}, above the budget of {budget:g}. Raise "
            "privacy.budget, or gather adapters of other clients in a new run folder"
        )
    center = privacy.release(pool, generator=generator)
    choice = (
        f"mean of {len(pool)} adapters, none longer than {privacy.clip:g}, with noise of "
        f"deviation {privacy.noise_deviation(len(pool)):.3g} on each coordinate: epsilon "
        f"{together:.3g} at delta_p = {privacy.delta:g} for replacing one client's adapter"
    )
    notes = {"choice": choice, "pool": len(pool)}
    return PointPrior(center), notes | {
        "privacy": privacy.notes(len(pool), before=before, trunk=trunk)
    }
