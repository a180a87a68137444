"""The federated prior against the pooled one, on the same adapters."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedcert.arrays import FloatArray
from fedcert.clients.denoising import answer
from fedcert.fitting import fit_prior
from fedcert.priors import DiffusionPrior
from fedcert.randomness import keyed_generator
from fedcert.simulations.benchmarks.federations import Federation
from fedcert.simulations.benchmarks.prior_measures import measure_prior
from fedcert.strategies.federated_fit import Arrays, FederatedTraining, federated_fit

__all__ = ["federated_rows", "fit_in_process"]


def fit_in_process(
    adapters: FloatArray,
    *,
    seed: int,
    training: FederatedTraining = FederatedTraining(),  # noqa: B008
    judges: float = 0.2,
) -> DiffusionPrior:
    """Hold the dialogue of the federated fit with clients that are rows of a matrix.

    Parameters
    ----------
    adapters : numpy.ndarray
        One client's adapter per row, ``(N, d)``.
    seed : int
        Draws the fit, and who judges.
    training : FederatedTraining
        How to go about it.
    judges : float (default: 0.2)
        Share of the clients that only say when to stop.

    Returns
    -------
    DiffusionPrior
        The prior that the dialogue ends with.
    """
    order = keyed_generator("federated judges", seed).permutation(len(adapters))
    count = max(1, round(judges * len(adapters)))
    members = {"judges": order[:count], "fit": order[count:]}
    dialogue = federated_fit(dimension=adapters.shape[1], seed=seed, training=training)
    question = next(dialogue)
    while True:
        sums: Arrays = {}
        asked = members[question.of]
        for row in asked:
            found = answer(
                question.kind, question.words, question.arrays, adapters[row], client=str(row)
            )
            for name, array in found.items():
                sums[name] = sums.get(name, np.zeros(array.shape)) + array
        try:
            question = dialogue.send((sums, len(asked)))
        except StopIteration as end:
            prior: DiffusionPrior = end.value
            return prior


def federated_rows(federation: Federation, *, seed: int = 0) -> list[dict[str, Any]]:
    """Measure the pooled and the federated prior.

    Returns
    -------
    list of dict
        ``{"scenario", "pool", "fit", "prior", "m", "risk", "se", "n", "certificate"}``.
    """
    pool = federation.pool()
    priors = {
        "pooled": fit_prior(pool, settings=federation.settings.prior, seed=seed).prior,
        "federated": fit_in_process(pool, seed=seed),
    }
    return [
        {
            "scenario": federation.scenario.name,
            "pool": len(pool),
            "fit": fit,
            "prior": prior.kind,
            **measure_prior(federation, prior),
        }
        for fit, prior in priors.items()
    ]
