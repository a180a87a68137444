"""Renders docs/certificates.md from what ``make bench-certificates`` measured."""

from __future__ import annotations

from typing import Any

from fedcert.planning.menu import menu, recipe_name
from fedcert.simulations.benchmarks.episodes import excess
from fedcert.simulations.benchmarks.mutants_table import mutants_table
from fedcert.simulations.benchmarks.pages import by_scenario, left_out, machine_line

__all__ = ["certificates_page"]


def certificates_page(record: dict[str, Any]) -> str:
    """Return the page as Markdown, of those parts that the record has."""
    parts = [
        "<!-- Rendered by `make bench-certificates`; do not edit. -->",
        "# What each recipe certifies",
        "",
    ]
    if record.get("table"):
        parts += _figures(record)
    if record.get("refinements"):
        parts += _refinements(record["refinements"])
    if record.get("coverage"):
        parts += _coverage(record["coverage"])
    if record.get("mutants"):
        parts += mutants_table(record["mutants"])
    return "\n".join(parts)


def _figures(record: dict[str, Any]) -> list[str]:
    lines = [
        f"Means over new clients and seeds; M = {record['candidates']:,}, "
        f"delta = {record['delta']:g}. *planned* is the recipe of this table that a plan on "
        "other clients chose for that n before any new client was served. *limit* is what "
        "a certificate would be if the best predictor came for free; *ratio* is the mean "
        "certificate over it. *below chance*: the share of clients whose certificate says "
        "more than guessing does. Gibbs certifies a randomized predictor and vote a majority "
        "vote; neither is issued. A number after a name is the share of the examples that "
        "chooses; *a+b* has a finalist of each, which share delta. *mixed_union* adds "
        "predictors of one label each, which have the share of delta that its last number "
        "names; *weighted_union* gives candidates that are drawn first more of delta; *steel* "
        "is a union with Hoeffding's inequality.",
        "",
        machine_line(record),
        "",
        *left_out(record),
    ]
    for scenario, rows in by_scenario(record):
        lines += [
            f"## `{scenario}`",
            "",
            f"Seeds {', '.join(map(str, record['seeds'][scenario]))}.",
            "",
            *_older_menu(record, rows),
            *_scenario(rows),
        ]
    return lines


def _older_menu(record: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """Say which recipes of today's menu a table does not have: its plans lack them too."""
    # Everything that any scenario's menu has: with constant predictors, and with a head.
    recipes = menu(
        candidates=record["candidates"], delta=record["delta"], constants=2, local_head=True
    )
    measured = {row["recipe"] for row in rows}
    lacking = [name for name in map(recipe_name, recipes) if name not in measured]
    if not lacking:
        return []
    return [
        "**These tables compare the recipes of an older menu.** Planners choose among these as "
        f"well by now: {', '.join(lacking)}. *planned* could choose none of them here.",
        "",
    ]


def _scenario(rows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for n in sorted({row["n"] for row in rows}):
        group = sorted(
            (row for row in rows if row["n"] == n), key=lambda row: row["mean_certificate"]
        )
        first = group[0]
        lines += [
            f"n = {n}: {first['clients']} clients; limit {first['limit']:.3f} "
            f"({first['limit_method']})",
            "",
            "| recipe | mean certificate | ratio | mean true error | below chance |",
            "|---|---|---|---|---|",
            *(
                f"| {_emphasized(row['recipe'])} | {row['mean_certificate']:.3f} ± "
                f"{row['se']:.3f} | {row['mean_certificate'] / row['limit']:.2f} "
                f"| {row['mean_error']:.3f} | {row['nonvacuous']:.0%} |"
                for row in group
            ),
            "",
        ]
    return lines


def _emphasized(name: str) -> str:
    return f"**{name}**" if name == "planned" else name


def _refinements(record: dict[str, Any]) -> list[str]:
    lines = [
        "## Refinements, and some that are no recipes",
        "",
        "All learn from the same choosing examples of the same clients, and the others "
        "certify. *posterior mode*, *finetune*, and *tuned head* start at the prior's center, "
        "as the recipes of these names do. The other ways are no recipes: *rated* fine-tunes "
        "with the rate and the pull in units of how far the adapters of the pool are apart in "
        "each coordinate, *gated* along the pool's directions alone, as a posterior mode does, "
        "and *from the mean* starts at the posterior mean, and is pulled to it. Differences "
        "are those of a client's figures from its posterior mean's, with the standard error "
        "over clients.",
        "",
        *left_out(record),
    ]
    for scenario, rows in by_scenario(record):
        seeds = ", ".join(map(str, rows[0]["seeds"]))
        lines += [
            f"`{scenario}`, seeds {seeds}:",
            "",
            "| n | share that chooses | refinement | mean certificate | difference | mean true "
            "error | difference | clients |",
            "|---|---|---|---|---|---|---|---|",
            *(
                f"| {row['n']} | {row['share']:g} | {row['refinement']} "
                f"| {_against(row['certificate'])} | {_against(row['error'])} "
                f"| {row['clients']} |"
                for row in rows
            ),
            "",
        ]
    return lines


def _against(cell: dict[str, float]) -> str:
    return f"{cell['mean']:.3f} | {cell['difference']:+.3f} ± {cell['se']:.3f}"


def _coverage(rows: list[dict[str, Any]]) -> list[str]:
    return [
        "## Coverage",
        "",
        "Episodes with exactly known risks; a violation is a risk above its certificate. *p*: "
        "probability of as many violations if each certificate is false with probability "
        f"delta, the most that is allowed. {_smallest(rows)}",
        "",
        "| recipe | case | episodes | violations | delta x episodes | p |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['recipe']} | {row['case']} | {row['episodes']:,} | {row['violations']:,} "
            f"| {row['delta'] * row['episodes']:.0f} | {_p(row):.3f} |"
            for row in rows
        ),
        "",
    ]


def _smallest(rows: list[dict[str, Any]]) -> str:
    """Say what the smallest p is worth among so many."""
    above = sum(row["violations"] > row["delta"] * row["episodes"] for row in rows)
    least = min(map(_p, rows))
    return (
        f"{above} of {len(rows)} rows have more violations than delta x episodes, which chance "
        "alone brings where a case is made to use up all of delta. The smallest p is "
        f"{least:.2g}; times {len(rows)} rows (Bonferroni) that is "
        f"{min(1.0, least * len(rows)):.2g}."
    )


def _p(row: dict[str, Any]) -> float:
    return excess(row["violations"], row["episodes"], row["delta"])
