"""Renders docs/domains.md from what ``make bench-domains`` measured."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from fedcert.simulations.benchmarks.pages import machine_line

__all__ = ["domains_page"]

_RISKS = dict[tuple[int, int, str, int], list[tuple[float, float]]]
# The one that uses no structure between the adapters beside their covariance.
_ANCHOR = "gaussian"


def domains_page(record: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    table, training = record["table"], record["training"]
    risks: _RISKS = defaultdict(list)
    for row in table:
        for found in row["risks"]:
            key = row["domains"], row["pool"], row["prior"], found["m"]
            risks[key].append((found["risk"], found["se"]))
    parts = [
        "<!-- Rendered by `make bench-domains`; do not edit. -->",
        "# When a prior pays",
        "",
        "Best-of-M risk on unseen tasks against the number of independent parts of a task and "
        "the size of the pool. The 150 intents of `intents` are split into 10, 20, or 30 "
        "groups (its option `domains`); each client calls half of them its own, so tasks "
        "differ in as many yes-or-no attributes. Clients train the head alone, on frozen "
        f"embeddings of MiniLM, in {training['steps']} steps of {training['batch_size']}. "
        f"{record['new']} new clients; no upstream client has their set. The best of M is "
        "picked on one half of a client's test examples and scored on the other: it says what "
        "candidates there are, and is no certificate.",
        "",
        f"{machine_line(record)} Seeds {', '.join(map(str, record['seeds']))}. ± is the "
        "standard error over new clients. *Directions*: latent directions of the Gaussian and "
        "of the diffusion, found from the spectrum. *Steps*: after how many training steps the "
        "diffusion was best on held-out adapters; 0 means that it is the Gaussian.",
        "",
    ]
    counts = sorted({m for *_, m in risks})
    kinds = list(dict.fromkeys(row["prior"] for row in table))
    for groups in sorted({row["domains"] for row in table}):
        rows = [row for row in table if row["domains"] == groups]
        alone = float(np.mean([row["alone"] for row in rows]))
        parts += [
            f"## {groups} groups",
            "",
            f"A head that a new client trains on 64 examples, alone, errs on {alone:.3f}.",
            "",
            *_lines(groups, rows, kinds, counts, risks),
            "",
        ]
    if table:
        parts += ["## Where each prior begins to pay", "", *_verdicts(risks), ""]
    if record["planning"]:
        here = record.get("parts", {}).get("planning")
        where = f"{machine_line(here)} " if here else ""
        parts += [*_planning(record["planning"], record["new"], where), ""]
    return "\n".join(parts)


def _lines(
    groups: int,
    rows: list[dict[str, Any]],
    kinds: list[str],
    counts: list[int],
    risks: _RISKS,
) -> list[str]:
    lines = [
        "| pool | prior | directions | steps | "
        + " | ".join(f"best of {m:,}" for m in counts)
        + " |",
        "|---|---|---|---|" + "---|" * len(counts),
    ]
    for pool in sorted({row["pool"] for row in rows}):
        for kind in kinds:
            same = [row for row in rows if (row["pool"], row["prior"]) == (pool, kind)]
            if not same:
                continue  # not finished
            directions = _each(same, "directions") if kind not in {"pool", "jitter"} else ""
            shown = " | ".join(
                f"{risk:.3f} ± {se:.3f}"
                for risk, se in (_mean(risks[groups, pool, kind, m]) for m in counts)
            )
            steps = _each(same, "best_step")
            lines.append(f"| {pool} | {kind} | {directions} | {steps} | {shown} |")
    return lines


def _each(rows: list[dict[str, Any]], key: str) -> str:
    return ", ".join(str(row[key]) for row in rows if key in row)


def _mean(found: list[tuple[float, float]]) -> tuple[float, float]:
    """Average over seeds, each with clients of its own."""
    means, errors = np.array(found).T
    return float(means.mean()), float(np.sqrt(np.sum(errors**2)) / len(found))


def _verdicts(risks: _RISKS) -> list[str]:
    """Say for each grouping and pool which priors beat the Gaussian at the largest M."""
    most = max(m for *_, m in risks)
    lines = [
        f"Risk of the best of {most:,}, over that of the Gaussian on the same pool. Below 1 "
        "there is structure beyond the covariance that pays; new clients are the same for "
        "all, but a difference of less than two standard errors is no difference.",
        "",
    ]
    kinds = [kind for kind in dict.fromkeys(kind for _, _, kind, _ in risks) if kind != _ANCHOR]
    lines += [
        "| groups | pool | " + " | ".join(kinds) + " |",
        "|---|---|" + "---|" * len(kinds),
    ]
    for groups, pool in sorted({(groups, pool) for groups, pool, *_ in risks}):
        if any((groups, pool, kind, most) not in risks for kind in (_ANCHOR, *kinds)):
            continue  # not finished
        anchor, _ = _mean(risks[groups, pool, _ANCHOR, most])
        ratios = [_mean(risks[groups, pool, kind, most])[0] / anchor for kind in kinds]
        lines.append(f"| {groups} | {pool} | " + " | ".join(f"{r:.2f}" for r in ratios) + " |")
    return lines


def _planning(rows: list[dict[str, Any]], new: int, where: str) -> list[str]:
    """Compare plans for the mean with plans for the worst quarter."""
    lines = [
        "## The worst quarter",
        "",
        f"{where}What `planning.objective` does: {rows[0]['planners']} planning clients "
        "choose the recipe for their mean certificate or for that of their worst quarter, and "
        f"{new} new clients are served by it. *Worst quarter*: the mean certificate of the "
        "worst quarter of the new clients. *Change*: of the mean, against the plan for "
        "the mean, with its standard error over clients. Recipes that train are left out "
        "here.",
        "",
        "| groups | n | objective | recipe | mean certificate | worst quarter | change |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            str(row["domains"]),
            str(row["n"]),
            row["objective"],
            row["recipe"],
            f"{row['certificate']:.3f}",
            f"{row['worst_quarter']:.3f}",
            f"{row['change']:+.3f} ± {row['change_se']:.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines
