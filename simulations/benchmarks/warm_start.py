"""``make bench-warm-start``: what federated rounds on the base model are worth to certificates.

Every base model is used as a run would use it: harvest adapters, fit a prior, plan, certify.
Rounds, adapters and certificates are kept in the cache, so that a run which stopped goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from fedcert.certificates.bounds import chance_of
from fedcert.errors import FedcertError
from fedcert.planning import recipe_name
from fedcert.runs.machine import describe_machine, versions
from fedcert.simulations.benchmarks.federations import (
    attempted,
    only_remembered,
)
from fedcert.simulations.benchmarks.named_methods import outcome
from fedcert.simulations.benchmarks.named_site import DELTA
from fedcert.simulations.benchmarks.options import parsed, parser_of
from fedcert.simulations.benchmarks.publishing import publish, say
from fedcert.simulations.benchmarks.warm_start_page import warm_start_page
from fedcert.simulations.benchmarks.warm_start_site import CELLS, METHODS, WarmCell, WarmSite
from fedcert.simulations.benchmarks.warm_start_tried import tried_rows, untried
from fedcert.threads import torch_threads

__all__ = ["documents", "main", "measure"]

SEEDS = (0, 1, 2)
QUICK: dict[str, Any] = {
    "sizes": (8, 16), "new": 2, "fitted": 10, "planners": 2, "candidates": 8,
    "planning_size": 20,
}  # fmt: skip
"""A size that only shows that all parts run."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and render; a part of the benchmark goes to a folder of its own."""
    options = _options(arguments)
    cells = [cell for cell in CELLS if not options.cell or cell.name in options.cell]
    if options.quick:
        fewer = {"rounds": 2, "steps": 2}
        cells = [
            replace(cell, **QUICK, warm={**cell.warm, **fewer}, trunk=min(cell.trunk, 20))
            for cell in cells
        ]
    methods = options.method or list(METHODS)
    try:
        with torch_threads(1):
            with _measuring(not options.finished):
                tried = [] if options.quick else list(tried_rows(cells))
            with _measuring(not options.finished and not options.tried):
                for record in _growing(cells, options.seeds, methods):
                    record |= {"tried": tried, "untried": untried(cells, tried)}
                    publish("warm_start", record, documents(record), folder=options.output)
    except FedcertError as error:
        sys.exit(f"error: {error}")


def documents(record: dict[str, Any]) -> dict[str, str]:
    """Return what is rendered from a record, by path below ``docs/``."""
    return {"warm-start.md": warm_start_page(record)}


def _measuring(allowed: bool) -> AbstractContextManager[None]:
    return nullcontext() if allowed else only_remembered()


def measure(
    cells: Sequence[WarmCell], seeds: Sequence[int], methods: Sequence[str] = tuple(METHODS)
) -> dict[str, Any]:
    """Return the record of every cell with every seed and method.

    Parameters
    ----------
    cells : sequence of WarmCell
        What is measured.
    seeds : sequence of int
        Seeds of the federations.
    methods : sequence of str
        Of `METHODS`.

    Returns
    -------
    dict
        The benchmark's record, a JSON object.
    """
    *_, record = _growing(cells, seeds, methods)
    return record


def _growing(
    cells: Sequence[WarmCell], seeds: Sequence[int], methods: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield the record each time that a cell, seed and method is done."""
    table: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    unfinished: list[dict[str, Any]] = []
    for seed in seeds:
        for cell in cells:
            for method in [each for each in methods if each in cell.methods]:
                say(f"{cell.name}, seed {seed}, {method}: ", end="")
                measure_it = partial(_rows, cell, seed, method)
                rows = attempted(measure_it, missing=missing, name=cell.name)
                if rows is None:
                    if cell.name not in missing:
                        about = {"scenario": cell.name, "seed": seed, "method": method}
                        unfinished.append(about)
                    continue
                table += rows
                yield _record(cells, seeds, table, missing, unfinished)
    yield _record(cells, seeds, table, missing, unfinished)


def _record(
    cells: Sequence[WarmCell],
    seeds: Sequence[int],
    table: list[dict[str, Any]],
    missing: dict[str, str],
    unfinished: list[dict[str, Any]],
) -> dict[str, Any]:
    return {
        "command": "make bench-warm-start",
        "seeds": list(seeds),
        "delta": DELTA,
        "cells": [
            {
                "scenario": cell.name, "new": cell.new, "fitted": cell.fitted,
                "planners": cell.planners, "candidates": cell.candidates,
                "kinds": list(cell.kinds), "warm_start": dict(cell.warm),
                "trunk": cell.trunk or cell.fitted, "methods": list(cell.methods),
            }
            for cell in cells
        ],
        "machine": describe_machine(),
        "versions": versions(),
        "missing": dict(missing),
        "unfinished": list(unfinished),
        "table": list(table),
    }  # fmt: skip


def _rows(cell: WarmCell, seed: int, method: str) -> list[dict[str, Any]]:
    """Return the planned certificates of one base model, by n."""
    site = WarmSite(cell, seed, method)
    found: dict[int, list[dict[str, Any]]] = {n: [] for n in cell.sizes}
    for name in site.measured:
        client = site.client(name)
        for n in cell.sizes:
            found[n].append(outcome(client, site.plan.expected(n).recipe, n))
        say(".", end="")
    chance = float(
        np.mean([chance_of(len(site.scenario.labels_of(name))) for name in site.measured])
    )
    warm = site.progress.rounds if site.warm.rounds else []
    rows = []
    for n, outcomes in found.items():
        bounds = np.array([row["certificate"] for row in outcomes])
        errors = np.array([row["error"] for row in outcomes])
        rows.append(
            {
                "scenario": cell.name,
                "warm_start": site.method,
                "seed": site.seed,
                "n": n,
                "recipe": recipe_name(site.plan.expected(n).recipe),
                "expected": float(site.plan.expected(n).mean),
                "error": float(errors.mean()),
                "certificate": float(bounds.mean()),
                "se": float(bounds.std(ddof=1) / len(bounds) ** 0.5),
                "nonvacuous": float((bounds < chance).mean()),
                "violations": int((errors > bounds).sum()),
                "clients": len(bounds),
                "rounds": len(warm),
                "loss_first": warm[0]["loss"] if warm else None,
                "loss_last": warm[-1]["loss"] if warm else None,
                "bytes_up": sum(row["bytes_up"] for row in warm),
                "epsilon": site.warm.epsilon or None,
            }
        )
    return rows


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of("warm_start", __doc__, seeds=SEEDS, quick=True, finished=True)
    parser.add_argument(
        "--cell",
        action="append",
        choices=[cell.name for cell in CELLS],
        help="measure this one alone; may come several times",
    )
    parser.add_argument("--method", action="append", choices=list(METHODS))
    parser.add_argument(
        "--tried",
        action="store_true",
        help="measure nothing but the settings that were tried on a seed of their own",
    )
    return parsed(parser, arguments, free=["cell", "seeds", "method", "tried"])


if __name__ == "__main__":
    main()
