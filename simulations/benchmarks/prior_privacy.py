"""What local differential privacy costs: best-of-M risk and certificate by epsilon."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedcert.fitting import fit_prior
from fedcert.privacy import UploadPrivacy
from fedcert.randomness import keyed_generator
from fedcert.simulations.benchmarks.federations import Federation
from fedcert.simulations.benchmarks.prior_measures import measure_prior

__all__ = ["privacy_rows"]

DELTA = 1e-5


def privacy_rows(
    federation: Federation,
    *,
    epsilons: Sequence[float] = (10.0, 100.0, 1000.0),
    clip: float = 2.5,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Measure priors on noisy uploads.

    Parameters
    ----------
    federation : Federation
        Its upstream clients train the adapters.
    epsilons : sequence of float
        Promises of one upload, at delta_p = 1e-5.
    clip : float (default: 2.5)
        About the median norm of a digits adapter; fixed, not found from the pool.
    seed : int (default: 0)
        Draws noise and fits.

    Returns
    -------
    list of dict
        ``{"scenario", "pool", "epsilon", "delta_p", "clip", "noise_deviation", "prior", "m",
        "risk", "se", "n", "certificate"}``; the first row, with no epsilon, is
        the pool without noise.
    """
    pool = federation.pool()
    rows = [_row(federation, pool, seed) | {"epsilon": None}]
    for epsilon in epsilons:
        privacy = UploadPrivacy(clip, epsilon, DELTA)
        generator = keyed_generator("private pool", seed, str(epsilon))
        noisy = np.array([privacy.release(row, generator=generator) for row in pool])
        rows.append(
            _row(federation, noisy, seed)
            | {
                "epsilon": epsilon,
                "delta_p": DELTA,
                "clip": clip,
                "noise_deviation": privacy.noise_deviation,
            }
        )
    return rows


def _row(federation: Federation, pool: np.ndarray, seed: int) -> dict[str, Any]:
    fitted = fit_prior(pool, settings=federation.settings.prior, seed=seed)
    return {
        "scenario": federation.scenario.name,
        "pool": len(pool),
        "prior": fitted.prior.kind,
        **measure_prior(federation, fitted.prior),
    }
