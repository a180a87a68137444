"""Renders docs/tables.md from what ``make bench-tables`` measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.simulations.benchmarks.pages import (
    by_scenario,
    left_out,
    machine_line,
    standard_error,
)

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
        "*Ahead* is the mean difference between the two certificates of one client, with the "
        "larger of its standard errors over clients and over seeds: the clients of a seed "
        "share one prior and one plan.",
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
        "| n | seeds | upstream, by seed | new, of all seeds | chance "
        "| planned: certificate (error) | local: certificate (error) | ahead "
        "| ahead, by seed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for n in dict.fromkeys(row["n"] for row in rows):
        planned, local = (
            [row for row in rows if row["n"] == n and row["method"] == method]
            for method in ("planned", "local")
        )
        by_seed = [
            np.subtract(other["bounds"], own["bounds"])
            for own, other in zip(planned, local, strict=True)
        ]
        upstream = ", ".join(str(row["upstream"]) for row in planned)
        each = ", ".join(f"{gains.mean():+.3f}" for gains in by_seed)
        lines.append(
            f"| {n} | {len(planned)} | {upstream} | {sum(map(len, by_seed))} "
            f"| {planned[0]['chance']:.3f} | {_cell(planned)} | {_cell(local)} "
            f"| {_ahead(by_seed)} | {each} |"
        )
    return lines


def _ahead(by_seed: list[npt.NDArray[np.float64]]) -> str:
    """Return the mean gain, and the larger of its standard errors over clients and seeds.

    All clients of a seed are served by one prior and one plan.
    """
    gains, means = np.concatenate(by_seed), np.array([each.mean() for each in by_seed])
    errors = [standard_error(each) for each in (gains, means) if len(each) > 1]
    return f"{gains.mean():+.3f} ± {max(errors, default=0.0):.3f}"


def _cell(rows: list[dict[str, Any]]) -> str:
    bounds = np.concatenate([row["bounds"] for row in rows])
    error = np.average([r["error"] for r in rows], weights=[r["clients"] for r in rows])
    return f"{bounds.mean():.3f} ({error:.3f})"
