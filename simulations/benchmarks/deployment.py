"""``make bench-deployment``: what goes wrong and what comes of it, and what scale costs.

Every part can be measured alone, into a folder of its own (``--output``) or over the last
record's part.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import transformers

from fedcert.runs.machine import describe_machine, versions
from fedcert.simulations.benchmarks.deployment_page import reliability_page
from fedcert.simulations.benchmarks.deployment_scale import in_own_process
from fedcert.simulations.benchmarks.publishing import kept_record, page_of, publish, say

__all__ = ["FAULTS", "PARTS", "documents", "fault_rows", "main", "overhead_of"]

FAULTS = ("tests/faults", "tests/deployment/test_node_faults.py")
"""The tests that bring faults about; their JUnit report is what the table is made from."""

_ROOT = Path(__file__).resolve().parents[2]
_PROBLEMS = ("failure", "error")

CLIENTS = (50, 200, 1000)
UPLOADS = 10_000
_PAGE = "reliability.md"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and render; the whole benchmark takes about a quarter of an hour."""
    options = _options(arguments)
    transformers.logging.disable_progress_bar()
    logging.getLogger("flwr").setLevel(logging.ERROR)  # it logs every round
    some = set(options.part or PARTS) < set(PARTS)
    record = kept_record("deployment") if some and options.output is None else {}
    for part in options.part or PARTS:
        record |= PARTS[part](options)
    record |= {
        "command": "make bench-deployment",
        "machine": describe_machine(),
        "versions": versions(),
    }
    publish("deployment", record, documents(record), folder=options.output)
    if unexpected := [r["fault"] for r in record.get("faults", []) if not r["as_expected"]]:
        sys.exit(f"error: not what was expected came of: {'; '.join(unexpected)}")


def documents(record: dict[str, Any]) -> dict[str, str]:
    """Return what is rendered from a record, by path below ``docs/``."""
    return {_PAGE: reliability_page(page_of(_PAGE), record)}


def fault_rows(report: Path) -> list[dict[str, Any]]:
    """Read what came of the faults from the JUnit report of their tests.

    Returns
    -------
    list of dict
        ``kind, fault, expected, outcome, lost, as_expected, seconds``, a row for each fault.
    """
    rows = []
    # The report is one that a test run of ours has just written.
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314
        told = {p.get("name", ""): p.get("value", "") for p in case.iter("property")}
        if "fault" not in told:
            continue  # a test of the tests' own judge
        problem = next((e.get("message", "") for e in case if e.tag in _PROBLEMS), None)
        missing = {"outcome": f"not handled: {problem}", "lost": "unknown"}
        rows.append(
            {
                "kind": case.get("classname", "").rpartition("test_")[2].partition("_")[0],
                **missing,
                **told,
                "as_expected": problem is None,
                "seconds": round(float(case.get("time", "0")), 1),
            }
        )
    return rows


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


def _faults(_options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="fedcert-faults-") as name:
        report = Path(name) / "faults.xml"
        command = [sys.executable, "-m", "pytest", *FAULTS, f"--junitxml={report}"]
        subprocess.run(command, cwd=_ROOT, check=False)  # noqa: S603 - made above
        return {"faults": fault_rows(report)}


def _scale(options: argparse.Namespace) -> dict[str, Any]:
    runs = []
    for clients in options.clients:
        say(f"a simulation with {clients} upstream clients on Ray")
        runs.append(in_own_process("run", clients, "ray"))
    largest = overhead_of(runs[-1], min(os.cpu_count() or 1, runs[-1]["clients"]))
    memory = [{key: run[key] for key in ("clients", "server_mib", "total_mib")} for run in runs]
    return {
        "simulation_overhead": largest["ratio"],
        "simulation": largest,
        "peak_rss_by_clients": memory,
    }


def _pool(options: argparse.Namespace) -> dict[str, Any]:
    say(f"{options.uploads} uploads into a pool")
    return {"pooled_uploads": in_own_process("pool", options.uploads)}


def _footprint(_options: argparse.Namespace) -> dict[str, Any]:
    from fedcert.simulations.benchmarks.footprint import measure_footprint

    say("a device's footprint")
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


if __name__ == "__main__":
    main()
