"""Renders docs/tables.md from what ``make bench-tables`` measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedcert.simulations.benchmarks.pages import by_scenario, left_out, machine_line

__all__ = ["tables_page"]

_ABOUT = {
    "companies": "Forty companies with 200 tickets each, and three queues. A company follows "
    "one of three ways to deal out the domains of requests to queues, but for a tenth of the "
    "intents.",
    "sites": "Eight sites with 600 tickets each, across which there are two ways to do so: a "
    "federation of few clients.",
}


def tables_page(record: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    parts = [
        "<!-- Rendered by `make bench-tables`; do not edit. -->",
        "# A table of one's own, with and without the federation",
        "",
        "Tables of tickets as companies have them, written as CSV files and run with "
        "`fedcert simulate table` and no setting but the columns' names. *planned* is what new "
        "clients were certified for. *local* is a logistic regression on the same embeddings, "
        "which half of the same labels train and the other half certify: no federation at all. "
        "*Ahead* is the mean difference between the two certificates of one client, with its "
        "standard error over clients and seeds.",
        "",
        machine_line(record),
        "",
        *left_out(record),
        "The texts are requests of CLINC150; `simulations/benchmarks/ticket_tables.py` draws "
        "who handles them.",
        "",
    ]
    for scenario, rows in by_scenario(record):
        parts += [f"## {scenario}", "", _ABOUT.get(scenario, ""), "", *_lines(rows), ""]
    return "\n".join(parts)


def _lines(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| n | seeds | upstream | new | chance | planned: certificate (error) "
        "| local: certificate (error) | ahead |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for n in dict.fromkeys(row["n"] for row in rows):
        planned, local = (
            [row for row in rows if row["n"] == n and row["method"] == method]
            for method in ("planned", "local")
        )
        gains = np.concatenate(
            [
                np.subtract(other["bounds"], own["bounds"])
                for own, other in zip(planned, local, strict=True)
            ]
        )
        error = gains.std(ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
        lines.append(
            f"| {n} | {len(planned)} | {planned[0]['upstream']} | {len(gains)} "
            f"| {planned[0]['chance']:.3f} | {_cell(planned)} | {_cell(local)} "
            f"| {gains.mean():+.3f} ± {error:.3f} |"
        )
    return lines


def _cell(rows: list[dict[str, Any]]) -> str:
    bounds = np.concatenate([row["bounds"] for row in rows])
    error = np.average([r["error"] for r in rows], weights=[r["clients"] for r in rows])
    return f"{bounds.mean():.3f} ({error:.3f})"
