"""Renders docs/sweeps.md from what ``make bench-sweeps`` measured."""

from __future__ import annotations

from typing import Any

from fedcert.simulations.benchmarks.pages import left_out, machine_line

__all__ = ["sweeps_page"]

_TITLES = {
    "candidates": ("M, the candidates drawn", "Every prior draws from the same noise."),
    "rank": ("Rank of the adapters", "Each rank has a pool of its own."),
    "pool": ("Adapters in the pool", "The prior is fitted to the first of them."),
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
        "of the examples, with no federation, and certifies on the other half.",
        "",
        machine_line(record),
        "",
        *left_out(record),
    ]
    for sweep in dict.fromkeys(row["sweep"] for row in record["table"]):
        rows = [row for row in record["table"] if row["sweep"] == sweep]
        title, text = _TITLES[sweep]
        about = rows[0]
        held_out = ", ".join(map(str, record["held_out"][about["scenario"]]))
        parts += [
            f"## {title}",
            "",
            f"Scenario `{about['scenario']}`, {_seeds(about['seeds'])}. "
            + text.format(held_out=held_out, pool=about["pool"]),
            "",
            *_table(rows),
            "",
        ]
    return "\n".join(parts)


def _seeds(seeds: list[int]) -> str:
    word = "seed" if len(seeds) == 1 else "seeds"
    return f"{word} {', '.join(map(str, seeds))}"


def _table(rows: list[dict[str, Any]]) -> list[str]:
    recipes = list(dict.fromkeys(row["recipe"] for row in rows))
    cells = {(row["prior"], row["value"], row["recipe"]): row for row in rows}
    lines = [
        f"| prior | value | {' | '.join(recipes)} | clients |",
        f"|---|---|{'---|' * (len(recipes) + 1)}",
    ]
    for prior, value in dict.fromkeys((row["prior"], row["value"]) for row in rows):
        found = [cells[prior, value, recipe] for recipe in recipes]
        texts = [f"{c['certificate']:.3f} ± {c['se']:.3f} ({c['error']:.3f})" for c in found]
        lines.append(f"| {prior} | {value} | {' | '.join(texts)} | {found[0]['clients']} |")
    return lines
