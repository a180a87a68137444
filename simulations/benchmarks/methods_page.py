"""Renders docs/benchmarks.md from what ``make bench-methods`` measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedcert.simulations.benchmarks.pages import by_scenario, left_out, machine_line

__all__ = ["methods_page"]

# The certificate that "labels needed" asks for.
_TARGET = 0.2
_PLANNED = "fedcert planned"
_MEANS = (
    "error", "worst_decile_error", "certificate", "nonvacuous", "limit", "global_error",
    "client_seconds",
)  # fmt: skip


def methods_page(record: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    parts = [
        "<!-- Rendered by `make bench-methods`; do not edit. -->",
        "# Every method, certified",
        "",
        f"Means over seeds {record['seeds']} and each seed's new clients; delta = "
        f"{record['delta']:g}, M = {record['candidates']:,}. What each method is, how it was "
        "tuned and what its bound rests on: [baselines.md](baselines.md).",
        "",
        "* *certificate*: the mean bound, ± its standard error over seeds; *gap*: certificate "
        "minus error.",
        "* *error*: on test examples that nothing else used; *worst tenth*: the mean over the "
        "tenth of the clients with the largest errors.",
        "* *below chance*: the share of clients whose certificate beats guessing.",
        "* *limit*: what a certificate would be if the best of "
        f"{', '.join(record['limit_methods'])} (each learned from all n examples) came for "
        "free; *ratio* is certificate over limit.",
        "* *elsewhere*: error on a mixture of other clients' tests, that is, what "
        "personalizing forgets.",
        "* *sent*, *received*: KiB that an upstream client sends in all, and that a new client "
        "receives beside the base model and the adapter space.",
        "* *seconds*: a new client's time with one thread, from its texts or images on.",
        "",
        machine_line(record),
        "",
    ]
    parts += left_out(record)
    for scenario, rows in by_scenario(record):
        parts += _scenario(scenario, rows)
    return "\n".join(parts)


def _scenario(scenario: str, rows: list[dict[str, Any]]) -> list[str]:
    lines = [f"## `{scenario}`", "", *_needed(rows)]
    for n in sorted({row["n"] for row in rows}):
        here = [row for row in rows if row["n"] == n]
        names = dict.fromkeys(row["method"] for row in here)
        means = [_mean([row for row in here if row["method"] == name]) for name in names]
        means.sort(key=lambda row: row["certificate"])
        first = means[0]
        lines += [
            f"### n = {n}",
            "",
            f"{first['clients']} clients; limit {first['limit']:.3f} "
            f"({', '.join(sorted({row['limit_method'] for row in here}))}).",
            "",
            "| method | certificate | ratio | gap | below chance | error | worst tenth "
            "| elsewhere | sent | received | seconds |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
            *(_line(row) for row in means),
            "",
        ]
    return lines


def _mean(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Average over seeds; each seed counts as many clients as it has."""
    weights = np.array([row["clients"] for row in rows], dtype=np.float64)
    bounds = np.array([row["certificate"] for row in rows])
    spread = float(bounds.std(ddof=1) / len(bounds) ** 0.5) if len(bounds) > 1 else None
    return {
        **{
            key: float(np.average([row[key] for row in rows], weights=weights))
            for key in _MEANS
        },
        "method": rows[0]["method"],
        "clients": int(weights.sum()),
        "se": spread,
        "up_bytes": float(np.mean([row["up_bytes"] for row in rows])),
        "down_bytes": float(np.mean([row["down_bytes"] for row in rows])),
    }


def _line(row: dict[str, Any]) -> str:
    name = f"**{row['method']}**" if row["method"] == _PLANNED else row["method"]
    spread = "" if row["se"] is None else f" ± {row['se']:.3f}"
    bound = row["certificate"]
    return (
        f"| {name} | {bound:.3f}{spread} | {bound / row['limit']:.2f} "
        f"| {bound - row['error']:.3f} | {row['nonvacuous']:.0%} "
        f"| {row['error']:.3f} | {row['worst_decile_error']:.3f} | {row['global_error']:.3f} "
        f"| {row['up_bytes'] / 1024:.1f} | {row['down_bytes'] / 1024:.1f} "
        f"| {row['client_seconds']:.2f} |"
    )


def _needed(rows: list[dict[str, Any]]) -> list[str]:
    """Say how many labels each method needs for a mean certificate of 20%."""
    found: dict[int | None, list[str]] = {}
    for name in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == name]
        reached = [
            n
            for n in sorted({row["n"] for row in own})
            if _mean([row for row in own if row["n"] == n])["certificate"] <= _TARGET
        ]
        found.setdefault(reached[0] if reached else None, []).append(name)
    lines = [f"Labels needed for a mean certificate of {_TARGET:.0%}:", ""]
    for n in sorted(n for n in found if n is not None):
        lines.append(f"* {n}: {', '.join(found[n])}")
    if None in found:
        lines.append(f"* more than were tried: {', '.join(found[None])}")
    return [*lines, ""]
