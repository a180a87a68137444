"""``make bench-tables``: tables of tickets, with the settings that a newcomer has.

Each table is written as a CSV file and run by the command that the documentation shows. What is
measured is what the run says of itself: the planned certificates of its new clients, and what
each of them would have had without the federation. A run is kept in the cache, so that a
benchmark which stopped goes on; the page shows what there is after each.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fedcert import __version__
from fedcert.runs.machine import describe_machine, versions
from fedcert.settings import RunSettings
from fedcert.simulations.benchmarks.federations import remembered
from fedcert.simulations.benchmarks.options import parsed, parser_of
from fedcert.simulations.benchmarks.publishing import publish, say
from fedcert.simulations.benchmarks.tables_page import tables_page
from fedcert.simulations.benchmarks.ticket_tables import (
    COLUMNS,
    TABLES,
    TicketTable,
    write_table,
)
from fedcert.simulations.simulating import simulate

__all__ = ["documents", "main"]

SEEDS, SIZES = (0, 1, 2), (64,)
METHODS = {"planned": ("bound", "test_error"), "local": ("local_bound", "local_error")}


def measure(
    tables: Sequence[TicketTable],
    *,
    seeds: Sequence[int],
    sizes: Sequence[int],
    runner: str = "ray",
) -> Iterator[list[dict[str, Any]]]:
    """Run every table on one seed after the other; yield all rows after each run.

    Parameters
    ----------
    tables : sequence of TicketTable
        What to draw.
    seeds : sequence of int
        Draw tables, new clients, and all that a run draws.
    sizes : sequence of int
        Values of n.
    runner : str (default: "ray")
        As in `simulate`.

    Yields
    ------
    list of dict
        Rows of the record's table, one for each method.
    """
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        for table in tables:
            for n in sizes:
                rows += remembered(
                    "tables",
                    {"table": asdict(table), "seed": seed, "n": n, "version": __version__},
                    partial(_measured, table, seed=seed, n=n, runner=runner),
                )
                say(f"{table.name}, seed {seed}, n = {n}")
                yield rows


def _measured(table: TicketTable, *, seed: int, n: int, runner: str) -> list[dict[str, Any]]:
    text, label, client = COLUMNS
    with tempfile.TemporaryDirectory() as folder:
        path = write_table(table, Path(folder) / f"{table.name}.csv", seed=seed)
        options = {"source": str(path), "input": text, "label": label, "client": client}
        settings = RunSettings.from_mapping(
            {
                "seed": seed,
                "scenario": {"name": "table", "options": options | {"seed": seed}},
                "certificate": {"support_size": n},
            }
        )
        started = time.perf_counter()
        run = simulate(settings, output=Path(folder) / "run", runner=runner)
        seconds = time.perf_counter() - started
    return [_row(run.results, table, method, seed, n, seconds) for method in METHODS]


def _row(
    results: dict[str, Any], table: TicketTable, method: str, seed: int, n: int, seconds: float
) -> dict[str, Any]:
    bound, error = METHODS[method]
    bounds = np.array([client[bound] for client in results["clients"]])
    return {
        "scenario": table.name,
        "method": method,
        "upstream": results["prior"]["pool_size"],
        "clients": len(bounds),
        "n": n,
        "seed": seed,
        "error": float(np.mean([client[error] for client in results["clients"]])),
        "certificate": float(bounds.mean()),
        "bounds": bounds.tolist(),
        "nonvacuous": float(np.mean(bounds < results["chance"])),
        "chance": results["chance"],
        "prior": results["prior"]["kind"],
        "recipes": sorted({client["recipe"] for client in results["clients"]}),
        "run_seconds": seconds,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and render; a part goes to a folder of its own."""
    parser = parser_of("tables", __doc__, seeds=SEEDS)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--table", action="append", choices=list(TABLES))
    parser.add_argument("--runner", default="ray")
    options = parsed(parser, arguments, free=["runner"])
    found = measure(
        [TABLES[name] for name in options.table or TABLES],
        seeds=options.seeds,
        sizes=options.sizes,
        runner=options.runner,
    )
    for rows in found:
        record = {
            "command": "make bench-tables",
            "seeds": sorted({row["seed"] for row in rows}),
            "machine": describe_machine(),
            "versions": versions(),
            "missing": dict.fromkeys(
                {*(options.table or TABLES)} - {row["scenario"] for row in rows}, "not run yet"
            ),
            "table": sorted(rows, key=lambda row: (row["scenario"], row["n"], row["seed"])),
        }
        publish("tables", record, documents(record), folder=options.output)


def documents(record: dict[str, Any]) -> dict[str, str]:
    """Return what is rendered from a record, by path below ``docs/``."""
    return {"tables.md": tables_page(record)}


if __name__ == "__main__":
    main()
