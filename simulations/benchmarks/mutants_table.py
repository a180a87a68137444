"""The table of mutants, on the pages of certificates and promises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scipy.stats import binomtest

from fedcert.simulations.benchmarks.episodes import excess

__all__ = ["mutants_table"]


def mutants_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a section as lines of Markdown.

    Parameters
    ----------
    rows : sequence of dict
        Of `fedcert.simulations.benchmarks.mutants.rows`.
    """
    ordered = sorted(rows, key=lambda row: row["of"])
    escaped = sum(excess(r["false"], r["episodes"], r["delta"]) > 1e-4 for r in rows)
    caught = f"{len(rows) - escaped} of {len(rows)} are caught"
    return [
        "## Mutants",
        "",
        "Coverage shows something only if it would show a mistake. Each of these breaks one "
        "thing, and is played like the honest ones, "
        f"{rows[0]['episodes']:,} episodes each, where that thing matters. *false*: how often "
        "it is false, with an exact 95% interval; *honest*: how often what it was made from is "
        f"false in the same world, which may be delta = {rows[0]['delta']:g} and what chance "
        "adds. A mutant is caught if so many false ones would occur with probability 1e-4 at "
        f"most were each false with delta: {caught}.",
        "",
        "| of | what is broken | false | interval | honest |",
        "|---|---|---|---|---|",
        *(
            f"| {row['of']} | {row['breaks']} | {_rate(row, 'false')} | {_interval(row)} | "
            f"{_rate(row, 'honest')} |"
            for row in ordered
        ),
        "",
    ]


def _rate(row: dict[str, Any], which: str) -> str:
    return f"{row[which] / row['episodes']:.3f}"


def _interval(row: dict[str, Any]) -> str:
    found = binomtest(row["false"], row["episodes"]).proportion_ci(0.95, method="exact")
    return f"{found.low:.3f} to {found.high:.3f}"
