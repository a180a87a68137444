"""``make bench-deployment``: what goes wrong and what comes of it, and what scale costs.

Every part can be measured alone, into a folder of its own (``--output``) or over the last
record's part.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import transformers

from fedcert.machine import describe_machine, versions
from fedcert.simulations.benchmarks.deployment_page import reliability_page
from fedcert.simulations.benchmarks.deployment_scale import in_own_process
from fedcert.simulations.benchmarks.publishing import page_of, publish, record_of
from fedcert.simulations.faults.fault import Fault

__all__ = ["FAULTS", "PARTS", "main", "overhead_of", "run_fault"]

FAULTS = {
    "server": "SERVER_FAULTS",
    "nodes": "NODE_FAULTS",
    "uploads": "UPLOAD_FAULTS",
    "devices": "DEVICE_FAULTS",
    "deployed_nodes": "DEPLOYED_NODE_FAULTS",
}
"""Tuples of faults, by module of ``fedcert.simulations.faults``."""

CLIENTS = (50, 200, 1000)
UPLOADS = 10_000
_PAGE = "reliability.md"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and render; the whole benchmark takes about a quarter of an hour."""
    options = _options(arguments)
    transformers.logging.disable_progress_bar()
    logging.getLogger("flwr").setLevel(logging.ERROR)  # it logs every round
    record = record_of("deployment") if options.output is None else {}
    for part in options.part or PARTS:
        record |= PARTS[part](options)
    record |= {
        "command": "make bench-deployment",
        "machine": describe_machine(),
        "versions": versions(),
    }
    page = reliability_page(page_of(_PAGE), record)
    publish("deployment", record, {_PAGE: page}, folder=options.output)
    if unexpected := [r["fault"] for r in record.get("faults", []) if not r["as_expected"]]:
        sys.exit(f"error: not what was expected came of: {'; '.join(unexpected)}")


def run_fault(kind: str, fault: Fault) -> dict[str, Any]:
    """Bring a fault about in a folder of its own, and say what came of it."""
    with tempfile.TemporaryDirectory(prefix="fedcert-fault-") as name:
        started = time.perf_counter()
        try:
            found = fault.inject(Path(name))
        except Exception as error:  # the other faults are still to come
            outcome, lost = f"not handled: {type(error).__name__}: {error}", "unknown"
        else:
            outcome, lost = found.outcome, found.lost
        seconds = time.perf_counter() - started
    return {
        "kind": kind,
        "fault": fault.name,
        "expected": fault.expected.outcome,
        "outcome": outcome,
        "lost": lost,
        "as_expected": (outcome, lost) == (fault.expected.outcome, fault.expected.lost),
        "seconds": round(seconds, 1),
    }


def overhead_of(run: dict[str, Any], cores: int) -> dict[str, Any]:
    """Compare a run of `run_federation` with clients that need nothing but their own work.

    Returns
    -------
    dict
        The run, with ``ideal_seconds``, the clients' own time divided by the cores, and the
        ``ratio`` of the training phase to it; ``ratio_of_cpu``, where the ideal is the clients'
        processor time alone, without their waiting for the disk or for a core;
        ``ratio_of_work``, the processor time of everything over that of the clients, which
        other programs on the machine do not change; and ``ratio_with_start``, with the start
        and the clients' saying who they are included.
    """
    ideal = run["client_seconds"] / cores
    cpu = run["client_cpu_seconds"] / cores
    return run | {
        "cores": cores,
        "ideal_seconds": ideal,
        "ratio": run["train_seconds"] / ideal,
        "ratio_of_cpu": run["train_seconds"] / cpu,
        "ratio_of_work": run["all_cpu_seconds"] / run["client_cpu_seconds"],
        "ratio_with_start": (run["train_seconds"] + run["start_seconds"]) / ideal,
    }


def _faults(options: argparse.Namespace) -> dict[str, Any]:
    rows = []
    for kind, fault in _all_faults(options.faults or list(FAULTS)):
        _say(f"{kind}: {fault.name}")
        rows.append(run_fault(kind, fault))
        _say(f"  {rows[-1]['seconds']} s; {rows[-1]['outcome']}")
    if options.faults is not None and options.output is None:
        kept = record_of("deployment").get("faults", [])
        rows = [row for row in kept if row["kind"] not in options.faults] + rows
    return {"faults": rows}


def _all_faults(kinds: Sequence[str]) -> Iterator[tuple[str, Fault]]:
    for kind in kinds:
        module = import_module(f"fedcert.simulations.faults.{kind}")
        for fault in getattr(module, FAULTS[kind]):
            yield kind, fault


def _scale(options: argparse.Namespace) -> dict[str, Any]:
    runs = []
    for clients in options.clients:
        _say(f"a simulation with {clients} upstream clients on Ray")
        runs.append(in_own_process("run", clients, "ray"))
    largest = overhead_of(runs[-1], min(os.cpu_count() or 1, runs[-1]["clients"]))
    memory = [{key: run[key] for key in ("clients", "server_mib", "total_mib")} for run in runs]
    return {
        "simulation_overhead": largest["ratio"],
        "simulation": largest,
        "peak_rss_by_clients": memory,
    }


def _pool(options: argparse.Namespace) -> dict[str, Any]:
    _say(f"{options.uploads} uploads into a pool")
    return {"pooled_uploads": in_own_process("pool", options.uploads)}


def _footprint(_options: argparse.Namespace) -> dict[str, Any]:
    from fedcert.simulations.benchmarks.footprint import measure_footprint

    _say("a device's footprint")
    return {"footprint": measure_footprint()}


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "faults": _faults,
    "scale": _scale,
    "pool": _pool,
    "footprint": _footprint,
}
"""What the benchmark consists of; each part gives keys of the record."""


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-deployment", description=__doc__)
    parser.add_argument(
        "--part",
        action="append",
        choices=PARTS,
        help="measure this part alone; may be repeated",
    )
    parser.add_argument(
        "--faults",
        action="append",
        choices=FAULTS,
        help="of the part faults, only this kind; may be repeated",
    )
    parser.add_argument(
        "--clients",
        type=int,
        nargs="+",
        default=CLIENTS,
        help="upstream clients of the simulations, increasing",
    )
    parser.add_argument("--uploads", type=int, default=UPLOADS, help="uploads to pool")
    parser.add_argument(
        "--output", type=Path, help="write here, and leave the record and the docs as they are"
    )
    return parser.parse_args(arguments)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
