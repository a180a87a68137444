"""What hostile uploads do to a prior, with robust pooling and without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fedcert.arrays import FloatArray
from fedcert.fitting import fit_prior
from fedcert.randomness import keyed_generator
from fedcert.simulations.benchmarks.federations import Federation
from fedcert.simulations.benchmarks.prior_measures import measure_prior

__all__ = ["ATTACKS", "poisoned", "robustness_rows"]

Attack = Callable[[FloatArray, np.random.Generator], FloatArray]

ATTACKS: Mapping[str, Attack] = {
    "none": lambda rows, _: rows,
    "sign-flipped": lambda rows, _: -rows,
    "scaled by 10": lambda rows, _: 10 * rows,
    "noise": lambda rows, g: (
        rows.mean(axis=0) + rows.std(axis=0) * g.standard_normal(rows.shape)
    ),
    "copies": lambda rows, _: np.repeat(rows[:1], len(rows), axis=0),
    "near-copies": lambda rows, g: (
        rows[:1] + 0.05 * rows.std(axis=0) * g.standard_normal(rows.shape)
    ),
}
"""From honest adapters ``(k, d)`` to what hostile clients upload instead."""


def poisoned(
    pool: FloatArray, attack: str, *, share: float, seed: int
) -> tuple[FloatArray, frozenset[int]]:
    """Replace a share of a pool; return it with the rows that were replaced.

    Parameters
    ----------
    pool : numpy.ndarray
        Honest adapters, shape ``(N, d)``.
    attack : str
        Name of the attack.
    share : float
        Fraction of the pool that is replaced.
    seed : int
        Draws who is hostile, and what they send.

    Returns
    -------
    tuple
        The pool, shape ``(N, d)``, and the hostile rows.
    """
    generator = keyed_generator("poisoned", attack, seed)
    rows = generator.choice(len(pool), round(share * len(pool)), replace=False)
    changed = pool.copy()
    changed[rows] = ATTACKS[attack](pool[rows], generator)
    return changed, frozenset(rows.tolist()) if attack != "none" else frozenset()


def robustness_rows(
    federation: Federation, *, share: float = 0.2, seed: int = 0
) -> list[dict[str, Any]]:
    """Measure every attack with robust pooling and without.

    Parameters
    ----------
    federation : Federation
        Its upstream clients train the honest adapters.
    share : float (default: 0.2)
        Fraction of hostile clients; each uploads in place of an honest one.
    seed : int (default: 0)
        Draws who is hostile, and the fits.

    Returns
    -------
    list of dict
        ``{"scenario", "pool", "attack", "hostile", "robust", "hostile_dropped",
        "honest_dropped", "prior", "m", "risk", "se", "n", "certificate"}``.
    """
    pool, rows = federation.pool(), []
    for attack in ATTACKS:
        changed, hostile = poisoned(pool, attack, share=share, seed=seed)
        for robust in (False, True):
            settings = federation.settings.prior.model_copy(update={"robust": robust})
            fitted = fit_prior(changed, settings=settings, seed=seed)
            dropped = fitted.screening.dropped.keys()
            rows.append(
                {
                    "scenario": federation.scenario.name,
                    "pool": len(pool),
                    "attack": attack,
                    "hostile": len(hostile),
                    "robust": robust,
                    "hostile_dropped": len(dropped & hostile),
                    "honest_dropped": len(dropped - hostile),
                    "prior": fitted.prior.kind,
                    **measure_prior(federation, fitted.prior),
                }
            )
    return rows
