"""``make bench-demo``: run the demo in a fresh folder and render docs/demo.md from it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from fedcert.reports.figures import ClientBar, certificates_by_client
from fedcert.reports.formats import decimal_up
from fedcert.runs.progress import ProgressBars
from fedcert.settings import RunSettings
from fedcert.simulations.benchmarks.options import without_options
from fedcert.simulations.benchmarks.publishing import publish
from fedcert.simulations.simulating import Simulation, simulate

__all__ = ["main"]


def main() -> None:
    """Measure and render."""
    bars = ProgressBars(Console())
    settings = RunSettings.from_mapping(
        {"certificate": {"recipe": "planned"}}
    )  # as `make demo`
    with tempfile.TemporaryDirectory() as folder, bars.shown():
        run = simulate(settings, output=Path(folder) / "run", listeners=[bars])
        results = run.results
    record = {
        "command": "make bench-demo",
        "seed": results["seed"],
        "machine": results["machine"],
        "versions": results["versions"],
        **run.summary,
        "clients": [
            {key: row[key] for key in ("client", "n", "recipe", "bound", "test_error")}
            for row in results["clients"]
        ],
    }
    documents = {"demo.md": _page(run, record), "figures/demo.svg": _figure(results)}
    publish("demo", record, documents)


def _page(run: Simulation, record: dict[str, Any]) -> str:
    summary, machine = run.summary, record["machine"]
    priors = [f"| {kind} | {risk:.3f} |" for kind, risk in summary["best_of_1000"].items()]
    clients = [
        f"| {row['client']} | {row['n']} | {row['recipe']} | {row['test_error']:.3f} "
        f"| {decimal_up(row['bound'])} |"
        for row in record["clients"]
    ]
    worst = max(row["bound"] for row in record["clients"])
    return "\n".join(
        [
            "<!-- Rendered by `make bench-demo`; do not edit. -->",
            "# The demo's figures",
            "",
            f"Scenario `digits`, seed {record['seed']}: {run.results['description']}",
            "",
            f"* new clients: {summary['new_clients']}, each with "
            f"{record['clients'][0]['n']} labeled examples",
            f"* mean certificate: {decimal_up(summary['mean_certificate'])} "
            f"(largest {decimal_up(worst)})",
            f"* mean test error: {summary['mean_test_error']:.3f}",
            "* without the federation, by a head that half of the same labels train and the "
            f"other half certify: {decimal_up(summary['local_certificate'])} "
            f"(test error {summary['local_test_error']:.3f})",
            "* error of one client's adapter on the other new clients' tests, whose tasks are "
            f"others: {summary['mean_error_elsewhere']:.3f}",
            f"* time: {summary['seconds']:g} s on {machine['cores']} cores ({machine['cpu']}); "
            f"peak memory {summary['peak_rss_mib']} MiB, all processes together",
            "",
            "Risk of the best of 1,000 candidates on the new clients' tasks, at equal M:",
            "",
            "| prior | risk |",
            "|---|---|",
            *priors,
            "",
            "![certified against true error](figures/demo.svg)",
            "",
            "| client | n | recipe | test error | certified |",
            "|---|---|---|---|---|",
            *clients,
            "",
        ]
    )


def _figure(results: dict[str, Any]) -> str:
    rows = [
        ClientBar(client=row["client"], bound=row["bound"], test_error=row["test_error"])
        for row in results["clients"]
    ]
    return certificates_by_client(rows, chance=results["chance"])


if __name__ == "__main__":
    without_options("demo", __doc__)
    main()
