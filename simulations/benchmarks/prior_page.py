"""Renders docs/prior.md and its figures from what ``make bench-prior`` measured."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from fedcert.reports.figures import best_of_m
from fedcert.reports.formats import decimal_up
from fedcert.simulations.benchmarks.pages import by_scenario, left_out, machine_line
from fedcert.simulations.benchmarks.prior_measures import NEW, SEED

__all__ = ["prior_figures", "prior_page"]

_COMMAND = "make bench-prior"
# What the record's keys mean; others are headings as they are.
_HEADINGS = {
    "pool": "adapters in the pool",
    "nn_ratio": "distance ratio",
    "replication_p": "replay, p-value",
    "mia_attack": "strongest attack",
    "auc": "AUC",
    "auc_upper": "AUC, upper 95% limit",
    "right": "right, times in 20",
    "passed": "passes",
    "m": "candidates (M)",
    "risk": "risk (share of wrong labels)",
    "n": "labels (n)",
    "certificate": "mean certificate at n",
    "epsilon": "epsilon of an upload",
    "delta_p": "delta of that promise",
    "clip": "clipping norm",
    "noise_deviation": "noise per coordinate (standard deviation)",
    "fit": "fitted",
    "hostile": "hostile uploads",
    "robust": "screening",
    "hostile_dropped": "hostile ones left out",
    "honest_dropped": "honest ones left out",
    "residual_mean": "lost share of the squared norm, mean",
    "residual_max": "lost share of the squared norm, largest",
    "poisoner": "what the poisoner fits",
    "violations": "false certificates",
    "mean_certificate": "mean certificate",
    "mean_risk": "mean risk (share of wrong labels)",
}
_BOUNDS = ("certificate", "mean_certificate")
_POISONERS = {
    "none": "nothing: nobody poisons",
    "independent": "other examples of the task",
    "has seen the examples": "the certifying examples",
}


def prior_page(record: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    parts = [
        f"<!-- Rendered by `{_COMMAND}`; do not edit. -->",
        "# The prior's figures",
        "",
        "Risk on unseen tasks, that is the share of wrong labels, of the *best of M*: M "
        "candidates are drawn from a prior, and the one with the fewest errors on one half of "
        "the test examples is scored on the other half, both ways. All priors are fitted to "
        "the same adapters and draw from the same noise; means over seeds, each with pools, "
        "tasks and splits of its own, ± one standard error over tasks.",
        "",
        "* *diffusion*, *gaussian*: a diffusion model of the pool's adapters, and a Gaussian "
        "with their mean and covariance along the leading directions.",
        "* *jitter*: an adapter of the pool, drawn at random, plus Gaussian noise.",
        "* *pool*: an adapter of the pool, drawn at random, as it is. More candidates than "
        "adapters are the same ones again.",
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
            "Does the prior replay its pool? *distance ratio*: distance of samples to the "
            "nearest pool adapter over that of held-out adapters; *p-value*: "
            "probability of samples so near to the pool if the prior does not replay it. Does "
            "it tell who was in the pool? *AUC*: with what probability the strongest "
            "membership attack, shown an adapter of the pool and another one, picks that of "
            "the pool; a guess is right 10 times in 20. The advantage of "
            "[privacy.md](privacy.md) is 2 AUC - 1, and the gate acts on its upper limit, "
            "which holds for all attacks at once. Up to 64 adapters are held out for them, "
            "where a run holds out a tenth of its pool: its limits are wider.",
            [_audited(row) for row in record.get("audit", [])],
        ),
        (
            "Privacy",
            "What locally private uploads cost: epsilon of one upload, replacing it by any "
            "other; longer adapters are shortened to the clipping norm before noise is added. "
            "The first row is the pool without noise. Here and below risks are those of the "
            "best of M, ± one standard error over new clients, and certificates those of a "
            f"split of n labels into halves, of one federation (seed {SEED}) with {NEW} new "
            "clients. Certificates have no standard error here: rows whose risks are within "
            "two of theirs are not told apart by a few hundredths of a certificate.",
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
            "Clients that train ordinary LoRA of their own rank, projected into the space: the "
            "*lost share* of an update is what the space cannot hold.",
            record.get("mixed", []),
        ),
        (
            "Poisoned pools and validity",
            "Synthetic tasks with known risks. Certificates hold whatever is uploaded, as long "
            "as it does not depend on the certifying examples; where a poisoner has seen "
            "those, they break.",
            [
                row | {"poisoner": _POISONERS.get(row["poisoner"], row["poisoner"])}
                for row in record.get("poisoning", [])
            ],
        ),
    ]


def _audited(row: dict[str, Any]) -> dict[str, Any]:
    """Say an advantage as how often the attack picks the adapter of the pool."""
    shown: dict[str, Any] = {}
    for key, value in row.items():
        if key == "mia_advantage":
            area = (1 + value) / 2
            shown |= {"auc": area, "auc_upper": None, "right": f"{20 * area:.1f}"}
        elif key == "mia_upper":
            shown["auc_upper"] = (1 + value) / 2
        else:
            shown[key] = value
    return shown


def _table(rows: list[dict[str, Any]]) -> list[str]:
    # The standard error stands beside its risk.
    columns = [key for key in dict.fromkeys(key for row in rows for key in row) if key != "se"]
    headings = [_HEADINGS.get(column, column.replace("_", " ")) for column in columns]
    return [
        f"| {' | '.join(headings)} |",
        "|" + "---|" * len(columns),
        *(f"| {' | '.join(_cell(row, column) for column in columns)} |" for row in rows),
    ]


def _cell(row: dict[str, Any], column: str) -> str:
    value = row.get(column)
    if column == "epsilon":
        return "none" if value is None else f"{value:,g}"
    if value is None:
        return ""
    if column in _BOUNDS:
        return decimal_up(value)
    if column == "risk" and "se" in row:
        return f"{value:.3f} ± {row['se']:.3f}"
    return _said(value)


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if value and abs(value) < 5e-4:
            return f"{value:.0e}"
        return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
