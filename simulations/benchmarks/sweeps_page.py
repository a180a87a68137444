"""Renders docs/sweeps.md from what ``make bench-sweeps`` measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedcert.simulations.benchmarks.pages import left_out, machine_line
from fedcert.simulations.benchmarks.provenance import UNKNOWN

__all__ = ["local_as_before", "sweeps_page"]

_TITLES = {
    "candidates": ("M, the candidates drawn", "Every prior draws from the same noise."),
    "rank": ("Rank of the adapters", "Each rank has a pool of its own."),
    "pool": ("Adapters in the pool", "The prior is fitted to the first of them."),
    "tied": (
        "Modules that share their numbers",
        "With `adapter.tied` all adapted modules share a few numbers in the place of an R of "
        "each, so an adapter has fewer coordinates beside its head; the prior is fitted to "
        "{pool} adapters of that space. *Coordinates*: d, the head included. *Directions*: the "
        "prior's, by seed.",
    ),
    "digit": (
        "A digit that nobody upstream has",
        "The digit {held_out} is in half of all clients' sets. In the shifted federation it is "
        "in no upstream client's; pools are equally large.",
    ),
    "domain": (
        "A domain of requests that nobody upstream has",
        "The same with the domain *{held_out}*.",
    ),
    "languages": (
        "Languages that nobody upstream has",
        "The new clients have news in {held_out}. Other clients with those languages are "
        "upstream too, or nobody is; pools are equally large ({pool} adapters).",
    ),
}


def sweeps_page(record: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    defaults = record["defaults"]
    parts = [
        "<!-- Rendered by `make bench-sweeps`; do not edit. -->",
        "# What matters, one thing at a time",
        "",
        f"n = {record['n']}, delta = {record['delta']:g}. Where nothing else is said: the "
        f"diffusion prior, M = {defaults['candidates']:,}, rank {defaults['rank']}, and a pool "
        f"of {defaults['pool']}. Each cell is the mean certificate ± its standard error over "
        "clients, with the mean true error in brackets. *local LoRA* trains an adapter on half "
        "of the examples, with no federation, and certifies on the other half."
        f"{local_as_before(record)}",
        "",
        f"{machine_line(record)}{_elsewhere(record)}",
        "",
        *left_out(record),
    ]
    for sweep in dict.fromkeys(row["sweep"] for row in record["table"]):
        rows = [row for row in record["table"] if row["sweep"] == sweep]
        title, text = _TITLES[sweep]
        about = rows[0]
        held_out = ", ".join(map(str, record["held_out"][about["scenario"]]))
        here = record.get("parts", {}).get(sweep)
        parts += [
            f"## {title}",
            "",
            f"Scenario `{about['scenario']}`, {_seeds(about['seeds'])}. "
            + (f"{machine_line(here)} " if here else "")
            + text.format(held_out=held_out, pool=about["pool"]),
            "",
            *_table(rows),
            "",
            *(_where_tying_pays(rows) if sweep == "tied" else []),
        ]
    return "\n".join(parts)


def local_as_before(record: Mapping[str, Any]) -> str:
    """Say of a record with rows of before 2026-11-30 how its *local LoRA* was trained."""
    if UNKNOWN not in record.get("measured", {}).get("code", ()):
        return ""
    return (
        " But for the modules that share numbers it took steps on batches, as it did until "
        "2026-11-30, and was not measured again since."
    )


def _seeds(seeds: list[int]) -> str:
    word = "seed" if len(seeds) == 1 else "seeds"
    return f"{word} {', '.join(map(str, seeds))}"


def _table(rows: list[dict[str, Any]]) -> list[str]:
    recipes = list(dict.fromkeys(row["recipe"] for row in rows))
    cells = {(row["prior"], row["value"], row["recipe"]): row for row in rows}
    sized = "coordinates" in rows[0]
    sizes = " coordinates | directions |" if sized else ""
    lines = [
        f"| prior | value |{sizes} {' | '.join(recipes)} | clients |",
        f"|---|---|{'---|' * (len(recipes) + 1 + 2 * sized)}",
    ]
    for prior, value in dict.fromkeys((row["prior"], row["value"]) for row in rows):
        found = [cells[prior, value, recipe] for recipe in recipes]
        texts = [f"{c['certificate']:.3f} ± {c['se']:.3f} ({c['error']:.3f})" for c in found]
        if sized:
            directions = ", ".join(map(str, found[0]["directions"]))
            texts = [str(found[0]["coordinates"]), directions, *texts]
        lines.append(f"| {prior} | {value} | {' | '.join(texts)} | {found[0]['clients']} |")
    return lines


def _elsewhere(record: dict[str, Any]) -> str:
    return " Sweeps that were measured apart say on which." if record.get("parts") else ""


def _where_tying_pays(rows: list[dict[str, Any]]) -> list[str]:
    """Say in words how certificates of the same clients change when modules are tied."""
    tied = [row for row in rows if row["tied"]]
    lines = [
        "Change of the mean certificate against an R of each at the same rank, with the "
        "standard error of the difference over the same clients:",
        "",
        "| value | recipe | change |",
        "|---|---|---|",
        *(
            f"| {row['value']} | {row['recipe']} | "
            f"{row['change']:+.3f} ± {row['change_se']:.3f} |"
            for row in tied
        ),
        "",
    ]
    better = [row for row in tied if row["change"] < -2 * row["change_se"]]
    worse = [row for row in tied if row["change"] > 2 * row["change_se"]]
    lines.append(
        f"By more than two standard errors a tied space pays {_listed(better)}; it costs "
        f"{_listed(worse)}. Elsewhere it makes no difference that shows."
    )
    return [*lines, "", *_lowest_of_each(rows), ""]


def _lowest_of_each(rows: list[dict[str, Any]]) -> list[str]:
    """Compare the best rank with an R of each with the best tied space, whatever its rank."""
    found = []
    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        own, tied = (
            min(
                (
                    row
                    for row in rows
                    if row["recipe"] == recipe and bool(row["tied"]) == wanted
                ),
                key=lambda row: row["certificate"],
            )
            for wanted in (False, True)
        )
        found.append(
            f"{recipe} {own['certificate']:.3f} ± {own['se']:.3f} ({own['value']}) against "
            f"{tied['certificate']:.3f} ± {tied['se']:.3f} ({tied['value']})"
        )
    return [
        "What a larger rank costs may also be had back by a smaller one. The lowest mean "
        "certificates with an R of each against the lowest where modules are tied, of which "
        f"there are more to choose from: {'; '.join(found)}."
    ]


def _listed(rows: list[dict[str, Any]]) -> str:
    """Name settings, each with its recipes."""
    if not rows:
        return "nowhere"
    by_value: dict[str, list[str]] = {}
    for row in rows:
        by_value.setdefault(row["value"], []).append(row["recipe"])
    return "at " + "; ".join(
        f"{value} ({', '.join(names)})" for value, names in by_value.items()
    )
