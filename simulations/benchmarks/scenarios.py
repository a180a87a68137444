"""``make bench-scenarios``: run every scenario at its default size.

Renders a table into docs/scenarios.md. Names on the command line measure only these again.
"""

from __future__ import annotations

import argparse
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from fedcert.errors import SettingsError
from fedcert.reports.formats import decimal_up
from fedcert.runs.machine import describe_machine, versions
from fedcert.runs.progress import ProgressBars
from fedcert.scenarios import load_scenario
from fedcert.settings import RunSettings
from fedcert.simulations.benchmarks.publishing import (
    between_markers,
    kept_record,
    page_of,
    publish,
    say,
)
from fedcert.simulations.simulating import simulate

__all__ = ["documents", "main"]

NAMES = ("digits", "intents", "named-intents", "politeness", "topics")
_PAGE = "scenarios.md"
_BEFORE = "before December 2026"  # rows had no date then
PRIORS = ("diffusion", "gaussian", "jitter", "pool")


def main(names: list[str] | None = None) -> None:
    """Measure and render.

    Parameters
    ----------
    names : list of str, optional
        Scenarios to measure; rows of others stay as they are. All by default.
    """
    wanted = names or list(NAMES)
    unknown = sorted(set(wanted) - set(NAMES))
    if unknown:
        raise SystemExit(f"there is no scenario {unknown[0]!r}; choose {', '.join(NAMES)}")
    kept = kept_record("scenarios").get("table", []) if names else []
    known = {row["scenario"]: row for row in kept}
    for name in wanted:
        row = _row(name)
        if row is None:
            continue
        known[name] = row
        # After each one: a run that is cut short keeps what it measured.
        table = [known[name] for name in NAMES if name in known]
        record = {"command": "make bench-scenarios", "table": table}
        publish("scenarios", record, documents(record))


def _row(name: str) -> dict[str, Any] | None:
    """Run one scenario in a fresh folder; None if its data or base model are not there."""
    settings = RunSettings.from_mapping({"scenario": {"name": name}})
    try:
        scenario = load_scenario(name, {})
        scenario.base_model()
        upstream, new = len(scenario.upstream_clients), len(scenario.new_clients)
    except SettingsError as error:
        say(f"{name} is left out: {error}")
        return None
    bars = ProgressBars(Console())
    with tempfile.TemporaryDirectory() as folder, bars.shown():
        run = simulate(settings, output=Path(folder) / "run", listeners=[bars])
    failed = sum(cause["clients"] for cause in run.results["failures"])
    return {
        "scenario": name,
        "seed": settings.seed,
        "upstream_clients": upstream,
        "new_clients": new,
        "certified_clients": run.summary["new_clients"],
        "failed_clients": failed,
        "n": settings.certificate.support_size,
        "candidates": settings.certificate.candidates,
        "mean_certificate": run.summary["mean_certificate"],
        "mean_test_error": run.summary["mean_test_error"],
        "chance": run.results["chance"],
        "best_of_1000": run.summary["best_of_1000"],
        "prior": run.results["prior"]["kind"],
        "seconds": run.summary["seconds"],
        "peak_rss_mib": run.summary["peak_rss_mib"],
        "machine": describe_machine(),
        "versions": versions(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def documents(record: dict[str, Any]) -> dict[str, str]:
    """Return what is rendered from a record, by path below ``docs/``."""
    section = _section(record["table"])
    return {_PAGE: between_markers(page_of(_PAGE), "bench-scenarios", section)}


def _seeds(rows: list[dict[str, Any]]) -> str:
    seeds = sorted({row["seed"] for row in rows})
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _left(rows: list[dict[str, Any]]) -> str:
    """Say which scenarios nobody has measured yet at their default size."""
    there = {row["scenario"] for row in rows}
    left = [f"`{name}`" for name in NAMES if name not in there]
    return f" Not measured at this size: {', '.join(left)}." if left else ""


def _section(rows: list[dict[str, Any]]) -> str:
    table = [
        f"| `{r['scenario']}` | {r['upstream_clients']} | {r['certified_clients']} | {r['n']} "
        f"| {r['candidates']:,} "
        f"| {decimal_up(r['mean_certificate'])} | {r['mean_test_error']:.3f} "
        f"| {r['chance']:.3f} "
        f"| {_best_of(r)} "
        f"| {r['seconds']:.0f} | {r['peak_rss_mib']} | {r['machine']['cpu']} "
        f"| {r.get('date', _BEFORE)} |"
        for r in rows
    ]
    failed = [
        f"`{r['scenario']}`: {r['failed_clients']} clients failed."
        for r in rows
        if r["failed_clients"]
    ]
    return "\n".join(
        [
            f"Default size, M candidates, {_seeds(rows)}, Ray on "
            f"{rows[-1]['machine']['cores']} cores.{_left(rows)} Rows of different dates are "
            "of different code, and do not compare. The certificate and the test error are "
            "means over the new clients. *Best of 1,000* is the risk, on test examples, of the "
            "best of 1,000 candidates of each prior; *MiB* is the peak of all processes "
            "together.",
            "",
            "| scenario | upstream clients | new clients | n | M | certificate | test error "
            "| chance | best of 1,000: diffusion | Gaussian | jitter | pool | seconds | MiB "
            "| processor | date |",
            f"{'|---' * 16}|",
            *table,
            *(["", *failed] if failed else []),
        ]
    )


def _best_of(row: dict[str, Any]) -> str:
    """Return a cell for each prior; a scenario may recommend not to compare them."""
    risks = row["best_of_1000"]
    return " | ".join(f"{risks[kind]:.3f}" if kind in risks else "" for kind in PRIORS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scenarios", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="scenario", help="measure these again")
    main(parser.parse_args().names)
