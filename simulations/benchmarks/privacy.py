"""``make bench-privacy``: what central differential privacy costs what a server publishes.

Of the default adapter: clients tell intents apart by their names, so it serves labels nobody
had; each has few texts and trains for a few steps. Of a base model that was warmed up:
`privacy_trunk`. What clients computed is kept in the cache, one by one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fedcert.arrays import FloatArray
from fedcert.canonical import digest_tensors
from fedcert.certificates.attempts import FIRST_SHARE
from fedcert.certificates.recipes import DefaultRecipe
from fedcert.errors import FedcertError
from fedcert.privacy import MeanPrivacy
from fedcert.privacy.mechanism import clipped
from fedcert.randomness import keyed_generator
from fedcert.runs.machine import describe_machine, versions
from fedcert.simulations.benchmarks.federations import remembered
from fedcert.simulations.benchmarks.named_site import DELTA, Cell, Site
from fedcert.simulations.benchmarks.privacy_page import privacy_page
from fedcert.simulations.benchmarks.privacy_trunk import measured_trunks
from fedcert.simulations.benchmarks.publishing import kept_record, publish, say
from fedcert.threads import torch_threads

__all__ = ["documents", "main", "measure"]

PARTS = ("default", "trunk")
TRUNK_NEW = 36
"""New clients of a base model: a head takes them seconds."""
EPSILONS = (1.0, 3.0, 8.0)
DELTA_P = 1e-5
SIZES = (16, 64)
# Draws of the noise for each epsilon: a single one may be lucky.
_DRAWS = 3
# Chosen on the clients of a seed that nothing else is measured on: the median of their norms.
_CLIP_SEED, _CLIP_CLIENTS = 99, 8
_CELL = Cell(
    scenario="named-intents",
    # Where new clients' names come from a domain that nobody trained on, the base model alone
    # leaves a default adapter something to gain.
    setting="domain",
    sizes=SIZES,
    planners=0,
    training={"steps": 16, "batch_size": 32, "learning_rate": 0.1, "weight_decay": 0.01},
    options={"training_size": 60, "test_size": 100, "upstream": 512},
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and render; a part stands beside the rest of the last record."""
    options = _options(arguments)
    kept = kept_record("privacy") if len(options.part) == 1 and options.output is None else {}
    record = {"command": "make bench-privacy", **kept}
    try:
        with torch_threads(1):
            if "default" in options.part:
                record |= measure(options.clients, seed=options.seed, new=options.new)
            if "trunk" in options.part:
                record["trunk"] = measured_trunks(seeds=[options.seed], new=TRUNK_NEW)
    except FedcertError as error:
        sys.exit(f"error: {error}")
    record |= {"machine": describe_machine(), "versions": versions()}
    publish("privacy", record, documents(record), folder=options.output)


def documents(record: dict[str, Any]) -> dict[str, str]:
    """Return what is rendered from a record, by path below ``docs/``."""
    return {"private-default.md": privacy_page(record)}


def measure(counts: Sequence[int], *, seed: int, new: int) -> dict[str, Any]:
    """Return the record of the default adapter.

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
    pool = site.pool
    variants = [
        (about | {"clients": count, "clip": clip}, adapters)
        for count in counts
        for about, adapters in _defaults(pool[:count], clip=clip, seed=seed)
    ]
    everything = np.concatenate([adapters for _, adapters in variants])
    by_client = []
    for name in site.measured:
        about = site.identity(measured=name, adapters=digest_tensors({"all": everything}))
        about["sizes"] = list(SIZES)
        measure_one = partial(_outcomes, site, name, everything)
        by_client.append(remembered("privacy", about, measure_one))
        say(".", end="")
    # By client, adapter, and size: a certificate; and by client and adapter: an error.
    bounds = np.array([found["certificates"] for found in by_client])
    errors = np.array([found["errors"] for found in by_client])
    table, start = [], 0
    for about, adapters in variants:
        rows = slice(start, start + len(adapters))
        start = rows.stop
        table += [
            {"scenario": _CELL.scenario, **about, "n": n}
            | {
                "certificate": float(bounds[:, rows, place].mean()),
                "error": float(errors[:, rows].mean()),
            }
            for place, n in enumerate(SIZES)
        ]
    return {
        "seed": seed,
        "delta": DELTA,
        "clip_clients": _CLIP_CLIENTS,
        "training": dict(_CELL.training) | {"examples": _CELL.options["training_size"]},
        "dimension": site.space.dimension,
        "draws": _DRAWS,
        "new": new,
        "longer_than_clip": float((np.linalg.norm(pool, axis=1) > clip).mean()),
        "table": table,
    }


def _cell(fitted: int, new: int) -> Cell:
    return replace(_CELL, fitted=fitted, new=new)


def _clip() -> float:
    """Return C, by another federation: of the pool itself it would be a release."""
    site = Site(_cell(_CLIP_CLIENTS, 1), _CLIP_SEED)
    return float(f"{np.median(np.linalg.norm(site.pool, axis=1)):.2g}")


def _defaults(
    pool: FloatArray, *, clip: float, seed: int
) -> Iterator[tuple[dict[str, Any], FloatArray]]:
    """Yield each way to publish a default adapter, with the adapters that it may give."""
    yield {"mean": "none: the base model"}, np.zeros((1, pool.shape[1]))
    yield {"mean": "plain"}, pool.mean(axis=0)[None]
    yield {"mean": "clipped"}, np.mean([clipped(row, clip) for row in pool], axis=0)[None]
    for epsilon in sorted(EPSILONS, reverse=True):
        privacy = MeanPrivacy(clip, epsilon, DELTA_P)
        words = "central noise", seed, len(pool), str(epsilon)
        draws = [
            privacy.release(pool, generator=keyed_generator(*words, draw))
            for draw in range(_DRAWS)
        ]
        promise = {
            "mean": "noised",
            "epsilon": epsilon,
            "delta_p": DELTA_P,
            "noise_deviation": privacy.noise_deviation(len(pool)),
        }
        yield promise, np.array(draws)


def _outcomes(site: Site, name: str, adapters: FloatArray) -> dict[str, list[Any]]:
    """Return what adapters certify for a client that starts with them, and their errors."""
    client = site.client(name)
    recipe = DefaultRecipe(candidates=1, delta=DELTA, first_share=FIRST_SHARE)
    wrong = client.scorer.score(adapters, client.support).wrong
    errors = client.exact.score(adapters, client.tests).wrong.mean(axis=1)
    bounds = [[recipe.bound(int(row[:n].sum()), n) for n in SIZES] for row in wrong]
    return {"certificates": bounds, "errors": errors.tolist()}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="privacy", description=__doc__)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--clients", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--new", type=int, default=12, help="new clients that are measured")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="folder for the record and the page")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
