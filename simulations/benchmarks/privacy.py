"""``make bench-privacy``: what a default adapter certifies under central differential privacy.

Clients tell intents apart by their names, so the default adapter serves labels nobody had. Each
has few texts and trains for a few steps. Adapters are kept in the cache, one by one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fedcert.certificates.attempts import FIRST_SHARE
from fedcert.certificates.recipes import DefaultRecipe
from fedcert.errors import FedcertError
from fedcert.priors.base import FloatArray
from fedcert.privacy import MeanPrivacy
from fedcert.privacy.mechanism import clipped
from fedcert.randomness import keyed_generator
from fedcert.runs.machine import describe_machine, versions
from fedcert.simulations.benchmarks.named_site import DELTA, Cell, Client, Site
from fedcert.simulations.benchmarks.privacy_page import privacy_page
from fedcert.simulations.benchmarks.publishing import publish
from fedcert.threads import torch_threads

__all__ = ["main", "measure"]

EPSILONS = (1.0, 3.0, 8.0)
DELTA_P = 1e-5
SIZES = (16, 64)
# Draws of the noise for each epsilon: a single one may be lucky.
_DRAWS = 5
# Chosen on the clients of a seed that nothing else is measured on: the median of their norms.
_CLIP_SEED, _CLIP_CLIENTS = 99, 8
_Outcomes = dict[int, list[dict[str, float]]]
"""By n: certificate and error of each client."""
_CELL = Cell(
    scenario="named-intents",
    setting="mixed",
    sizes=SIZES,
    planners=0,
    training={"steps": 8, "batch_size": 16, "learning_rate": 0.1, "weight_decay": 0.01},
    options={"training_size": 20, "test_size": 100, "upstream": 512},
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and render; a part of the benchmark goes to a folder of its own."""
    options = _options(arguments)
    try:
        with torch_threads(1):
            record = measure(options.clients, seed=options.seed, new=options.new)
    except FedcertError as error:
        sys.exit(f"error: {error}")
    page = {"private-default.md": privacy_page(record)}
    publish("privacy", record, page, folder=options.output)


def measure(counts: Sequence[int], *, seed: int, new: int) -> dict[str, Any]:
    """Return the benchmark's record.

    Parameters
    ----------
    counts : sequence of int
        Numbers of upstream clients.
    seed : int
        Of the federation.
    new : int
        New clients that are certified for.

    Returns
    -------
    dict
        A JSON object.
    """
    clip = _clip()
    site = Site(_cell(max(counts), new), seed)
    clients = [site.client(name) for name in site.measured]
    pool = site.pool
    base = _outcomes(clients, np.zeros(site.space.dimension))
    table = [
        row
        for count in counts
        for row in _rows(clients, pool[:count], clip=clip, seed=seed, frozen=base)
    ]
    return {
        "command": "make bench-privacy",
        "seed": seed,
        "delta": DELTA,
        "clip_clients": _CLIP_CLIENTS,
        "training": dict(_CELL.training) | {"examples": _CELL.options["training_size"]},
        "dimension": site.space.dimension,
        "draws": _DRAWS,
        "new": new,
        "longer_than_clip": float((np.linalg.norm(pool, axis=1) > clip).mean()),
        "machine": describe_machine(),
        "versions": versions(),
        "table": table,
    }


def _cell(fitted: int, new: int) -> Cell:
    return replace(_CELL, fitted=fitted, new=new)


def _clip() -> float:
    """Return C, by another federation: of the pool itself it would be a release."""
    site = Site(_cell(_CLIP_CLIENTS, 1), _CLIP_SEED)
    return float(f"{np.median(np.linalg.norm(site.pool, axis=1)):.2g}")


def _rows(
    clients: Sequence[Client],
    pool: FloatArray,
    *,
    clip: float,
    seed: int,
    frozen: _Outcomes,
) -> list[dict[str, Any]]:
    """Return a row for each promise and n, for one number of upstream clients."""
    about = {"scenario": _CELL.scenario, "clients": len(pool), "clip": clip}
    found = [_row(about | {"mean": "none: the base model"}, frozen)]
    found.append(_row(about | {"mean": "plain"}, _outcomes(clients, pool.mean(axis=0))))
    shortened = np.mean([clipped(row, clip) for row in pool], axis=0)
    found.append(_row(about | {"mean": "clipped"}, _outcomes(clients, shortened)))
    for epsilon in sorted(EPSILONS, reverse=True):
        privacy = MeanPrivacy(clip, epsilon, DELTA_P)
        outcomes: _Outcomes = {n: [] for n in SIZES}
        for draw in range(_DRAWS):
            words = ("central noise", seed, len(pool), str(epsilon), draw)
            adapter = privacy.release(pool, generator=keyed_generator(*words))
            for n, rows in _outcomes(clients, adapter).items():
                outcomes[n] += rows
        promise = {
            "mean": "noised",
            "epsilon": epsilon,
            "delta_p": DELTA_P,
            "noise_deviation": privacy.noise_deviation(len(pool)),
        }
        found.append(_row(about | promise, outcomes))
    return [row for rows in found for row in rows]


def _row(about: dict[str, Any], outcomes: _Outcomes) -> list[dict[str, Any]]:
    return [
        about
        | {
            "n": n,
            "certificate": float(np.mean([row["certificate"] for row in rows])),
            "error": float(np.mean([row["error"] for row in rows])),
        }
        for n, rows in outcomes.items()
    ]


def _outcomes(clients: Sequence[Client], adapter: FloatArray) -> _Outcomes:
    """Return what an adapter certifies for each client that starts with it, by n."""
    recipe = DefaultRecipe(candidates=1, delta=DELTA, first_share=FIRST_SHARE)
    found: _Outcomes = {n: [] for n in SIZES}
    for client in clients:
        wrong = client.scorer.score(adapter[None], client.support).wrong[0]
        error = client.error(adapter)
        for n in SIZES:
            bound = recipe.bound(int(wrong[:n].sum()), n)
            found[n].append({"certificate": bound, "error": error})
    return found


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="privacy", description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--new", type=int, default=20, help="new clients that are measured")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="folder for the record and the page")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
