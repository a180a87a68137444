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
from fedcert.simulations.simulating import simulate

__all__ = ["documents", "main"]


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
        "description": results["description"],
        "chance": results["chance"],
        **run.summary,
        "clients": [
            {key: row[key] for key in ("client", "n", "recipe", "bound", "test_error")}
            for row in results["clients"]
        ],
    }
    publish("demo", record, documents(record))


def documents(record: dict[str, Any]) -> dict[str, str]:
    """Return what is rendered from a record, by path below ``docs/``."""
    return {"demo.md": _page(record), "figures/demo.svg": _figure(record)}


def _page(record: dict[str, Any]) -> str:
    machine = record["machine"]
    priors = [f"| {kind} | {risk:.3f} |" for kind, risk in record["best_of_1000"].items()]
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
            f"Scenario `digits`, seed {record['seed']}: {record['description']}",
            "",
            f"* new clients: {record['new_clients']}, each with "
            f"{record['clients'][0]['n']} labeled examples",
            f"* mean certificate: {decimal_up(record['mean_certificate'])} "
            f"(largest {decimal_up(worst)})",
            f"* mean test error: {record['mean_test_error']:.3f}",
            "* without the federation, by a head that half of the same labels train and the "
            f"other half certify: {decimal_up(record['local_certificate'])} "
            f"(test error {record['local_test_error']:.3f})",
            "* error of one client's adapter on the other new clients' tests, whose tasks are "
            f"others: {record['mean_error_elsewhere']:.3f}",
            f"* time: {record['seconds']:g} s on {machine['cores']} cores ({machine['cpu']}); "
            f"peak memory {record['peak_rss_mib']} MiB, all processes together",
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


def _figure(record: dict[str, Any]) -> str:
    rows = [
        ClientBar(client=row["client"], bound=row["bound"], test_error=row["test_error"])
        for row in record["clients"]
    ]
    return certificates_by_client(rows, chance=record["chance"])


if __name__ == "__main__":
    without_options("demo", __doc__)
    main()
