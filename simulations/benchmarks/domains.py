"""``make bench-domains``: from which pool on each prior pays, by how much tasks differ.

Clients of the scenario `intents` call half of 10, 20, or 30 groups of intents their own, and
train a head on frozen embeddings. Texts are embedded once, for all clients and all groupings.
Plans come last, after priors, which take hours; ``--planning`` measures them alone, and leaves
the priors as they are in the record.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from fedcert.errors import FedcertError
from fedcert.priors import PRIORS, DiffusionPrior
from fedcert.randomness import small_seed
from fedcert.runs.machine import describe_machine, versions
from fedcert.simulations.benchmarks.domains_ground import (
    COUNTS,
    NEW,
    POOLS,
    TRAINING,
    Ground,
    identity_of,
)
from fedcert.simulations.benchmarks.domains_page import domains_page
from fedcert.simulations.benchmarks.domains_plan import PLANNING_VERSION, planned_rows
from fedcert.simulations.benchmarks.federations import (
    NotMeasuredError,
    only_remembered,
    remembered,
)
from fedcert.simulations.benchmarks.options import parsed, parser_of
from fedcert.simulations.benchmarks.publishing import kept_record, publish, say
from fedcert.threads import torch_threads

__all__ = ["documents", "main", "measure"]

GROUPS = (10, 20, 30)
SEEDS = (0,)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and render; a part of the benchmark goes to a folder of its own."""
    parser = parser_of("domains", __doc__, seeds=SEEDS, finished=True)
    parser.add_argument("--planning", action="store_true", help="measure plans alone")
    options = parsed(parser, arguments, free=("planning",))
    kept = kept_record("domains") if options.planning and options.output is None else {}
    try:
        with torch_threads(1), only_remembered() if options.finished else nullcontext():
            record = measure(options.seeds, priors=not options.planning)
    except FedcertError as error:
        sys.exit(f"error: {error}")
    if kept:
        about = {name: record[name] for name in ("machine", "versions")}
        record = kept | {"planning": record["planning"], "parts": {"planning": about}}
    publish("domains", record, documents(record), folder=options.output)


def documents(record: dict[str, Any]) -> dict[str, str]:
    """Return what is rendered from a record, by path below ``docs/``."""
    return {"domains.md": domains_page(record)}


def measure(seeds: Sequence[int], *, priors: bool = True) -> dict[str, Any]:
    """Return the benchmark's record, a JSON object, with or without its table of priors."""
    cells = [(groups, seed) for seed in seeds for groups in GROUPS]
    return {
        "command": "make bench-domains",
        "seeds": list(seeds),
        "new": NEW,
        "training": TRAINING.to_config(),
        "machine": describe_machine(),
        "versions": versions(),
        "table": [row for cell in cells if priors for row in _rows(*cell)],
        "planning": [row for cell in cells for row in _planned(*cell)],
    }


def _planned(groups: int, seed: int) -> list[dict[str, Any]]:
    """Return what plans for the mean and for the tail give new clients of one grouping."""
    cell = identity_of(groups, seed) | {"planning": PLANNING_VERSION}
    try:
        found: list[dict[str, Any]] = remembered(
            "domains", cell, lambda: planned_rows(Ground(groups, seed))
        )
    except NotMeasuredError:
        return []
    say(f"{groups} groups: planned for {len(found)} objectives and sizes")
    return found


def _rows(groups: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each pool and prior, of one grouping."""
    identity, ground = identity_of(groups, seed), Ground(groups, seed)
    for size in POOLS:
        for kind in PRIORS:
            cell = identity | {"pool": size, "prior": kind}
            try:
                yield remembered("domains", cell, partial(_row, ground, size, kind))
            except NotMeasuredError:
                say(f"{groups} groups, pool {size}, {kind}: not finished")


def _row(ground: Ground, size: int, kind: str) -> dict[str, Any]:
    prior = PRIORS[kind].fit(ground.pool[:size], seed=small_seed("prior", ground.seed))
    risks = ground.risks(prior)
    row = {
        "scenario": "intents",
        "domains": ground.groups,
        "seed": ground.seed,
        "pool": size,
        "prior": kind,
        "directions": None if kind == "pool" else prior.noise_width,
        "alone": ground.alone,
        "risks": [
            {"m": m, "risk": float(column.mean()), "se": float(column.std(ddof=1) / NEW**0.5)}
            for m, column in zip(COUNTS, risks.T, strict=True)
        ],
    }
    if isinstance(prior, DiffusionPrior):
        row["best_step"] = prior.report.best_step
    risk = risks[:, -1].mean()
    say(f"{ground.groups} groups, pool {size}, {kind}: {risk:.3f}")
    return row


if __name__ == "__main__":
    main()
