"""Clients that train ordinary LoRA of their own rank, projected into one pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from fedcert.adapters import Projection, project
from fedcert.adapters.plain_lora import finetune_lora
from fedcert.arrays import FloatArray
from fedcert.atomic import write_atomically
from fedcert.cache import cache_folder
from fedcert.canonical import digest_json
from fedcert.fitting import fit_prior
from fedcert.randomness import small_seed
from fedcert.simulations.benchmarks.federations import Federation
from fedcert.simulations.benchmarks.prior_measures import measure_prior

__all__ = ["RANKS", "mixed_pool", "mixed_rows"]

RANKS = (2, 8, 32)

# Raise it when training or projection changes what it returns for the same settings.
_VERSION = 1


def mixed_pool(
    federation: Federation, *, ranks: Sequence[int] = RANKS
) -> tuple[FloatArray, FloatArray]:
    """Train every upstream client's LoRA, client i at ``ranks[i mod k]``, and project it.

    What has been trained before comes from the cache.

    Returns
    -------
    tuple of numpy.ndarray
        Adapters ``(N, d)``, and the share of its squared norm that each lost, ``(N,)``.
    """
    identity = {
        "version": _VERSION,
        "scenario": federation.settings.scenario.model_dump(),
        "space": federation.model.space.digest,
        "training": asdict(federation.settings.finetune_settings()),
        "seed": federation.settings.seed,
        "ranks": list(ranks),
    }
    path = cache_folder() / "pools" / f"{digest_json(identity)}.safetensors"
    if not path.is_file():
        projections = [
            _projection(federation, client, ranks[index % len(ranks)])
            for index, client in enumerate(federation.scenario.upstream_clients)
        ]
        # Uploads are float32.
        pool = np.array([p.vector for p in projections], dtype=np.float32)
        lost = np.array([p.lost for p in projections])
        write_atomically(path, save({"pool": pool, "lost": lost}))
    kept = load_file(path)
    return kept["pool"].astype(np.float64), kept["lost"]


def mixed_rows(
    federation: Federation, *, ranks: Sequence[int] = RANKS, seed: int = 0
) -> list[dict[str, Any]]:
    """Measure priors on adapters trained in the space and on projected ones.

    Parameters
    ----------
    federation : Federation
        Its upstream clients train either way, on the same examples.
    ranks : sequence of int (default: 2, 8, 32)
        Ranks of plain LoRA, taken in turn.
    seed : int (default: 0)
        Seed of the fits.

    Returns
    -------
    list of dict
        ``{"scenario", "pool", "uploads", "residual_mean", "residual_max", "prior", "m",
        "risk", "se", "n", "certificate"}``; residuals are shares of the squared norm of an
        update that the space could not hold.
    """
    shared = federation.pool()
    mixed, lost = mixed_pool(federation, ranks=ranks)
    rows = []
    for uploads, pool, residuals in (
        ("shared space", shared, np.zeros(len(shared))),
        ("mixed LoRA", mixed, lost),
    ):
        fitted = fit_prior(pool, settings=federation.settings.prior, seed=seed)
        rows.append(
            {
                "scenario": federation.scenario.name,
                "pool": len(pool),
                "uploads": uploads,
                "residual_mean": float(residuals.mean()),
                "residual_max": float(residuals.max()),
                "prior": fitted.prior.kind,
                **measure_prior(federation, fitted.prior),
            }
        )
    return rows


def _projection(federation: Federation, client: str, rank: int) -> Projection:
    result = finetune_lora(
        federation.model,
        federation.scenario.training_examples(client),
        rank=rank,
        seed=small_seed("finetune", federation.settings.seed, client),
        settings=federation.settings.finetune_settings(),
    )
    return project(federation.model.space, result.update)
