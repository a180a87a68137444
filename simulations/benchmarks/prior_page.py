"""Renders docs/prior.md and its figures from what ``make bench-prior`` measured."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from fedcert.reports.figures import best_of_m
from fedcert.simulations.benchmarks.pages import by_scenario, left_out, machine_line

__all__ = ["prior_figures", "prior_page"]

_COMMAND = "make bench-prior"


def prior_page(record: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    parts = [
        f"<!-- Rendered by `{_COMMAND}`; do not edit. -->",
        "# The prior's figures",
        "",
        "Risk on unseen tasks of the best of M candidates. The best is picked on one half of "
        "the test examples and scored on the other, both ways. All priors are fitted to the "
        "same adapters and draw from the same noise; means over seeds, each with pools, tasks "
        "and splits of its own, ± one standard error over tasks.",
        "",
        machine_line(record),
        "",
    ]
    parts += left_out(record)
    for scenario, rows in by_scenario(record):
        parts += _scenario(scenario, rows, seeds=record["seeds"][scenario])
    for title, text, rows in _sections(record):
        if rows:
            parts += [f"## {title}", "", text, "", *_table(rows), ""]
    return "\n".join(parts)


def prior_figures(record: dict[str, Any]) -> dict[str, str]:
    """Return a figure per scenario, by path below ``docs/``: its largest pool."""
    figures = {}
    for scenario, rows in by_scenario(record):
        largest = max(row["pool"] for row in rows)
        curves: dict[str, list[tuple[int, float, float | None]]] = defaultdict(list)
        for row in rows:
            if row["pool"] == largest:
                curves[row["prior"]].append((row["m"], row["risk"], row["se"]))
        figures[f"figures/prior-{scenario}.svg"] = best_of_m(curves)
    return figures


def _scenario(scenario: str, rows: list[dict[str, Any]], *, seeds: list[int]) -> list[str]:
    counts = sorted({row["m"] for row in rows})
    cells = {(row["pool"], row["prior"], row["m"]): row for row in rows}
    tasks = rows[0]["tasks"]
    lines = [
        f"## `{scenario}`",
        "",
        f"Seeds {', '.join(map(str, seeds))}; {tasks} unseen tasks in all. *Ratio*: diffusion "
        "to the best other prior.",
        "",
        "| pool | prior | " + " | ".join(f"best of {m:,}" for m in counts) + " |",
        "|---|---|" + "---|" * len(counts),
    ]
    for pool in sorted({row["pool"] for row in rows}):
        kinds = [kind for size, kind, m in cells if size == pool and m == counts[0]]
        for kind in kinds:
            values = [cells[pool, kind, m] for m in counts]
            shown = " | ".join(f"{v['risk']:.3f} ± {v['se']:.3f}" for v in values)
            lines.append(f"| {pool} | {kind} | {shown} |")
        ratios = [
            cells[pool, "diffusion", m]["risk"]
            / min(cells[pool, kind, m]["risk"] for kind in kinds if kind != "diffusion")
            for m in counts
        ]
        lines.append(f"| {pool} | *ratio* | " + " | ".join(f"{r:.2f}" for r in ratios) + " |")
    return [*lines, "", f"![best of M](figures/prior-{scenario}.svg)", ""]


def _sections(record: dict[str, Any]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    return [
        (
            "Audit",
            "Does the prior replay its pool? *nn ratio*: distance of samples to the nearest "
            "pool adapter over that of held-out adapters; *mia advantage*: true minus false "
            "positive rate of the membership attack, with the upper end of its confidence "
            "interval, on which the gate acts.",
            record.get("audit", []),
        ),
        (
            "Privacy",
            "What locally private uploads cost: epsilon of one upload, replacing it by any "
            "other. The first row is the pool without noise.",
            record.get("privacy", []),
        ),
        (
            "Federated prior",
            "Fitted from sums over clients; adapters stay where they are. Without secure "
            "aggregation and noise it has no formal privacy.",
            record.get("federated", []),
        ),
        (
            "Hostile uploads",
            "A fifth of the uploads is hostile; risk with and without the screening.",
            record.get("robustness", []),
        ),
        (
            "Mixed ranks",
            "Clients that train ordinary LoRA of their own rank, projected into the space.",
            record.get("mixed", []),
        ),
        (
            "Poisoned pools and validity",
            "Synthetic tasks with known risks. Certificates hold whatever is uploaded, as long "
            "as it does not depend on the certifying examples; where a poisoner has seen "
            "those, they break.",
            record.get("poisoning", []),
        ),
    ]


def _table(rows: list[dict[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [
        "| " + " | ".join(column.replace("_", " ") for column in columns) + " |",
        "|" + "---|" * len(columns),
    ]
    for row in rows:
        lines.append("| " + " | ".join(_cell(row.get(column)) for column in columns) + " |")
    return lines


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if value and abs(value) < 5e-4:
            return f"{value:.0e}"
        return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
