"""``make bench-named``: labels of clients' own, and encoders as they were trained.

What is measured is kept in the cache by client, so that a run which stopped goes on. Rows are
written when a scenario, setting and seed is done.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np

from fedcert.certificates.bounds import chance_of
from fedcert.errors import FedcertError
from fedcert.planning import recipe_name
from fedcert.runs.machine import describe_machine, versions
from fedcert.simulations.benchmarks.federations import attempted, only_remembered
from fedcert.simulations.benchmarks.named_gain import gain_figure, gain_section
from fedcert.simulations.benchmarks.named_methods import PLANNED, learned_on_all, measured
from fedcert.simulations.benchmarks.named_page import named_page
from fedcert.simulations.benchmarks.named_site import DELTA, Cell, Site
from fedcert.simulations.benchmarks.named_steel import SHOTS, steel_rows
from fedcert.simulations.benchmarks.options import parsed, parser_of
from fedcert.simulations.benchmarks.publishing import kept_record, page_of, publish, say
from fedcert.simulations.benchmarks.recipes import limit
from fedcert.threads import torch_threads

__all__ = ["CELLS", "SEEDS", "documents", "main", "measure"]

SEEDS = (0, 1, 2)
_README = "../README.md"
# Of `intents`, whose own settings take long on an encoder that is read at all tokens.
_TRAINING = {"steps": 24, "batch_size": 64, "learning_rate": 0.1}
CELLS = (
    Cell(scenario="named-intents", setting="mixed"),
    Cell(scenario="named-intents", setting="domain"),
    Cell(
        scenario="intents",
        sizes=(64, 256),
        fitted=96,
        planning_size=256,
        candidates=300,
        training=_TRAINING,
        # A trained head is searched with profit, however long it takes.
        left_out=("finetune",),
    ),
)
QUICK: dict[str, Any] = {
    "sizes": (8, 16), "new": 2, "some": 1, "fitted": 10, "planners": 2, "candidates": 8,
    "planning_size": 24,
}  # fmt: skip
"""A size that only shows that all parts run."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and render; a part stands beside the rest of the last record."""
    options = _options(arguments)
    cells = [cell for cell in CELLS if not options.cell or cell.name in options.cell]
    part = options.cell or options.clients or tuple(options.seeds) != SEEDS
    if options.clients:
        cells = [replace(cell, new=options.clients) for cell in cells]
    if options.quick:
        cells = [replace(cell, **QUICK) for cell in cells]
    kept = kept_record("named") if part and options.output is None else {}
    try:
        with torch_threads(1), only_remembered() if options.finished else nullcontext():
            for found in _growing(cells, options.seeds):
                record = _beside(kept, found)
                rendered = documents(record)
                if options.output is not None:
                    del rendered[_README]  # its numbers are of the whole benchmark
                publish("named", record, rendered, folder=options.output)
    except FedcertError as error:
        sys.exit(f"error: {error}")


def _beside(kept: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """Put rows of other scenarios, settings, and seeds from the last record into a new one."""
    if not kept:
        return record
    done = {(row["scenario"], row["setting"], row["seed"]) for row in record["table"]}
    cells = {(cell["scenario"], cell["setting"]) for cell in record["cells"]}
    merged = dict(record)
    others = [c for c in kept["cells"] if (c["scenario"], c["setting"]) not in cells]
    merged["cells"] = sorted(others + record["cells"], key=_place)
    merged["seeds"] = sorted({*kept["seeds"], *record["seeds"]})
    for part in ("table", "training", "plans", "steel"):
        rows = [r for r in kept[part] if (r["scenario"], r["setting"], r["seed"]) not in done]
        merged[part] = sorted(rows + record[part], key=_place)
    return merged


def _place(row: Mapping[str, Any]) -> int:
    """Return where a row's scenario and setting stand among the cells."""
    places = [(cell.scenario, cell.setting) for cell in CELLS]
    own = (row["scenario"], row["setting"])
    return places.index(own) if own in places else len(places)


def documents(record: dict[str, Any]) -> dict[str, str]:
    """Return what is rendered from a record, by path below ``docs/``."""
    front = {_README: gain_section(page_of(_README), record)}
    return {"named.md": named_page(record)} | gain_figure(record) | front


def measure(cells: Sequence[Cell], seeds: Sequence[int]) -> dict[str, Any]:
    """Return the record of every cell with every seed.

    Parameters
    ----------
    cells : sequence of Cell
        What is measured.
    seeds : sequence of int
        Seeds of the federations.

    Returns
    -------
    dict
        The benchmark's record, a JSON object.
    """
    *_, record = _growing(cells, seeds)
    return record


def _growing(cells: Sequence[Cell], seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield the record each time that a cell and seed is done."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    missing: dict[str, str] = {}
    for seed in seeds:
        for cell in cells:
            say(f"{cell.name}, seed {seed}: ", end="")
            parts = attempted(partial(_measured, cell, seed), missing=missing, name=cell.name)
            if parts is None:
                continue
            for key, rows in parts.items():
                found[key] += rows
            yield _record(cells, seeds, found, missing)
    yield _record(cells, seeds, found, missing)


def _record(
    cells: Sequence[Cell],
    seeds: Sequence[int],
    found: dict[str, list[dict[str, Any]]],
    missing: dict[str, str],
) -> dict[str, Any]:
    return {
        "command": "make bench-named",
        "seeds": list(seeds),
        "delta": DELTA,
        "shots": SHOTS,
        "cells": [
            {
                "scenario": cell.scenario, "setting": cell.setting, "new": cell.new,
                "some": cell.some, "fitted": cell.fitted, "planners": cell.planners,
                "candidates": cell.candidates, "left_out": sorted(cell.left_out),
            }
            for cell in cells
        ],
        "machine": describe_machine(),
        "versions": versions(),
        "missing": dict(missing),
        "table": list(found["table"]),
        "training": list(found["training"]),
        "plans": list(found["plans"]),
        "steel": list(found["steel"]),
    }  # fmt: skip


def _measured(cell: Cell, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Return rows of a cell and seed: the table's, the plan's, and those of STEEL's setting."""
    site = Site(cell, seed)
    about = {"scenario": cell.scenario, "setting": cell.setting, "seed": seed}
    outcomes: dict[tuple[str, int], dict[str, dict[str, Any]]] = defaultdict(dict)
    learned: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    steel: dict[str, list[dict[str, Any]]] = defaultdict(list)
    ways = {name: len(site.scenario.labels_of(name)) for name in site.measured}
    for place, name in enumerate(site.measured):
        some, client = place < cell.some, site.client(name)
        for row in measured(client, some=some):
            outcomes[row["method"], row["n"]][name] = row
        for n in cell.sizes:
            for method, error in learned_on_all(client, n).items():
                learned[n][method].append(error)
        if some and cell.setting == "mixed":
            for row in steel_rows(client):
                steel[row["method"]].append(row)
        say(".", end="")
    table = [
        about | _row(method, n, rows, outcomes, learned[n], ways)
        for (method, n), rows in outcomes.items()
    ]
    plans = [
        about | {"n": row.n, "recipe": recipe_name(row.recipe), "expected": row.mean}
        for row in site.plan.rows
    ]
    training = [about | asdict(site.settings.finetune_settings())]
    steel_table = _against_sgd(about, steel, ways)
    return {"table": table, "plans": plans, "steel": steel_table, "training": training}


def _row(
    method: str,
    n: int,
    rows: dict[str, dict[str, Any]],
    outcomes: Mapping[tuple[str, int], dict[str, dict[str, Any]]],
    learned: dict[str, list[float]],
    ways: dict[str, int],
) -> dict[str, Any]:
    """Average over the clients of one seed, and compare with the plan on the same clients."""
    bounds = np.array([row["certificate"] for row in rows.values()])
    errors = np.array([row["error"] for row in rows.values()])
    chances = np.array([chance_of(ways[name]) for name in rows])
    best = min(learned, key=lambda name: float(np.mean(learned[name])))
    planned, default = (
        np.array([outcomes[other, n][name]["certificate"] for name in rows])
        for other in (PLANNED, "default")
    )
    return {
        "method": method,
        "ways": max(ways.values()),
        "n": n,
        "error": float(errors.mean()),
        "certificate": float(bounds.mean()),
        "se": _standard_error(bounds),
        "nonvacuous": float((bounds < chances).mean()),
        "limit": limit(np.array(learned[best]), n, DELTA),
        "limit_method": best,
        "client_seconds": float(np.mean([row["seconds"] for row in rows.values()])),
        "clients": len(bounds),
        "violations": int((errors > bounds).sum()),
        "planned": float(planned.mean()),
        "above_planned": float((bounds - planned).mean()),
        "above_planned_se": _standard_error(bounds - planned),
        "above_default": float((bounds - default).mean()),
    }


def _against_sgd(
    about: dict[str, Any], found: dict[str, list[dict[str, Any]]], ways: dict[str, int]
) -> list[dict[str, Any]]:
    """Return STEEL's table: share of non-vacuous bounds, and how far accuracy is behind SGD."""
    chance = chance_of(max(ways.values()))
    sgd = [row["error"] for row in found.get("SGD", [])]
    return [
        about
        | {
            "method": method,
            "ways": max(ways.values()),
            "n": rows[0]["n"],
            "clients": len(rows),
            "certificate": float(np.mean([row["certificate"] for row in rows])),
            "error": float(np.mean([row["error"] for row in rows])),
            "nonvacuous": float(np.mean([row["certificate"] < chance for row in rows])),
            "accuracy_gap": float(np.mean([row["error"] for row in rows]) - np.mean(sgd)),
        }
        for method, rows in found.items()
    ]


def _standard_error(values: Any) -> float | None:
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of("named", __doc__, seeds=SEEDS, quick=True, finished=True)
    parser.add_argument(
        "--cell",
        action="append",
        choices=[cell.name for cell in CELLS],
        help="measure this one alone; may come several times",
    )
    parser.add_argument("--clients", type=int, help="measure so many new clients per seed")
    return parsed(parser, arguments, free=["cell", "seeds", "clients"])


if __name__ == "__main__":
    main()
