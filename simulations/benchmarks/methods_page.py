"""Renders docs/benchmarks.md and its figures from what ``make bench-methods`` measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedcert.reports.curves import Curve, draw_curves
from fedcert.reports.svg import PALETTE, WIDE
from fedcert.simulations.benchmarks.pages import (
    TARGETS,
    by_scenario,
    labels_needed_about,
    left_out,
    machine_line,
    standard_error,
)

__all__ = ["methods_figures", "methods_page"]

_PLANNED = "fedcert planned"
_MEANS = (
    "error", "worst_decile_error", "certificate", "nonvacuous", "limit", "global_error",
    "client_seconds", "memory_mib",
)  # fmt: skip
# What the planned recipe is compared in, and the tables' titles.
_COMPARED = {"certificate": "certificate", "error": "error", "global_error": "error elsewhere"}
# Certificates that decide which methods the figures show; more lines could not be told apart.
_SHOWN, _SHOWN_AT = 6, 64


def methods_page(record: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    parts = [
        "<!-- Rendered by `make bench-methods`; do not edit. -->",
        "# Every method, certified",
        "",
        f"Means over seeds and each seed's new clients; delta = "
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
        "* *MiB*: memory that one new client needed beside the loaded model, at its largest n.",
        "",
        "Client seconds were taken while other seeds ran beside them on the other core.",
        "",
        machine_line(record),
        "",
    ]
    parts += left_out(record)
    if waiting := [f"`{case['scenario']}`" for case in record["cases"] if not case["seeds"]]:
        parts += [f"Not measured yet: {', '.join(waiting)}.", ""]
    for scenario, rows in by_scenario(record):
        (about,) = [case for case in record["cases"] if case["scenario"] == scenario]
        parts += _scenario(scenario, rows, _unfinished(record["seeds"], about))
    return "\n".join(parts)


def methods_figures(record: dict[str, Any]) -> dict[str, str]:
    """Return two figures per scenario, by path below ``docs/``: certificates and errors."""
    figures = {}
    for scenario, rows in by_scenario(record):
        names = _shown(rows)
        for key, title in (("certificate", "mean certificate"), ("error", "mean true error")):
            figures[_figure_path(scenario, key)] = draw_curves(
                _curves(rows, names, key),
                name=f"methods-{scenario}-{key}",
                label=f"{title} by the number of labels, one line per method",
                x_title="n, a new client's labeled examples",
                y_title=title,
                base=2,
                width=WIDE,
                dotted="limit",
            )
    return figures


def _figure_path(scenario: str, key: str) -> str:
    return f"figures/methods-{scenario}-{key}.svg"


def _shown(rows: list[dict[str, Any]]) -> list[str]:
    """Return the methods with the lowest certificates, fedcert's planned one among them."""
    sizes = {row["n"] for row in rows}
    at = _SHOWN_AT if _SHOWN_AT in sizes else max(sizes)
    means = {name: _mean(own)["certificate"] for name, own in _by_method(rows, at).items()}
    return sorted(means, key=lambda name: (name != _PLANNED, means[name]))[:_SHOWN]


def _curves(rows: list[dict[str, Any]], names: Sequence[str], key: str) -> list[Curve]:
    curves = []
    for color, name in zip(PALETTE, names, strict=False):
        own = [row for row in rows if row["method"] == name]
        sizes = sorted({row["n"] for row in own})
        points = [(n, _mean([row for row in own if row["n"] == n])[key]) for n in sizes]
        curves.append(Curve(name, color, points, bound=key == "certificate"))
    if key == "certificate":
        limits = sorted({(row["n"], row["limit"]) for row in rows})
        curves.append(Curve("limit", "gray", limits, dotted=True))
    return curves


def _by_method(rows: list[dict[str, Any]], n: int) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each method at one n, a row per seed."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["n"] == n:
            found.setdefault(row["method"], []).append(row)
    return found


def _unfinished(wanted: list[int], about: dict[str, Any]) -> list[str]:
    """Say which seeds, and which methods of a seed, are not measured yet."""
    seeds = about["seeds"]
    lines = [f"Seeds {', '.join(map(str, seeds))}."]
    if missing := sorted(set(wanted) - set(seeds)):
        lines[0] += f" Not measured yet: {', '.join(map(str, missing))}."
    for seed, names in about["unfinished"].items():
        if names:
            lines.append(f"Not measured yet at seed {seed}: {', '.join(names)}.")
    return [*lines, ""]


def _scenario(scenario: str, rows: list[dict[str, Any]], about: list[str]) -> list[str]:
    lines = [
        f"## `{scenario}`",
        "",
        *about,
        f"![certificates by n]({_figure_path(scenario, 'certificate')})",
        "",
        f"![errors by n]({_figure_path(scenario, 'error')})",
        "",
        *_needed(rows),
        *_behind(rows),
    ]
    for n in sorted({row["n"] for row in rows}):
        found = _by_method(rows, n)
        means = [_mean(own) for own in found.values()]
        means.sort(key=lambda row: row["certificate"])
        first = means[0]
        limits = sorted({row["limit_method"] for row in rows if row["n"] == n})
        lines += [
            f"### n = {n}",
            "",
            f"{first['clients']} clients; limit {first['limit']:.3f} ({', '.join(limits)}).",
            "",
            "| method | certificate | ratio | gap | below chance | error | worst tenth "
            "| elsewhere | sent | received | seconds | MiB |",
            "|---|---|---|---|---|---|---|---|---|---|---|---|",
            *(_line(row) for row in means),
            "",
        ]
    return lines


def _behind(rows: list[dict[str, Any]]) -> list[str]:
    """Say how far each method is from the planned recipe on the same clients."""
    sizes = sorted({row["n"] for row in rows if row["method"] == _PLANNED})
    names = [name for name in dict.fromkeys(row["method"] for row in rows) if name != _PLANNED]
    if not sizes or not names:
        return []
    lines = [
        f"Differences to *{_PLANNED}* on the same clients, paired by seed, ± their standard "
        f"error over seeds: above 0 *{_PLANNED}* is better, below 0 it is behind. Methods "
        "stand in the order of their certificates at the largest n.",
        "",
    ]
    for key, title in _COMPARED.items():
        found = {n: _by_method(rows, n) for n in sizes}
        apart = {name: [_apart(found[n], name, key) for n in sizes] for name in names}
        lines += [
            f"| {title} | {' | '.join(f'n = {n}' for n in sizes)} |",
            f"|---{'|---' * len(sizes)}|",
            *(f"| {name} | {' | '.join(apart[name])} |" for name in _ordered(found, names)),
            "",
        ]
    return lines


def _ordered(found: dict[int, dict[str, list[dict[str, Any]]]], names: list[str]) -> list[str]:
    """Return methods by their certificates at the largest n at which each was measured."""

    def last(name: str) -> float:
        n = max(n for n, methods in found.items() if name in methods)
        return float(_mean(found[n][name])["certificate"])

    there = [name for name in names if any(name in methods for methods in found.values())]
    return sorted(there, key=last)


def _apart(found: dict[str, list[dict[str, Any]]], name: str, key: str) -> str:
    """Return the mean difference by seed with its standard error; of one seed without it."""
    planned = {row["seed"]: row[key] for row in found[_PLANNED]}
    own = [row for row in found.get(name, []) if row["seed"] in planned]
    if not own:
        return "-"
    apart = np.array([row[key] - planned[row["seed"]] for row in own])
    spread = f" ± {standard_error(apart):.3f}" if len(apart) > 1 else ""
    return f"{apart.mean():+.3f}{spread}"


def _mean(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Average over seeds; each seed counts as many clients as it has."""
    weights = np.array([row["clients"] for row in rows], dtype=np.float64)
    bounds = np.array([row["certificate"] for row in rows])
    spread = standard_error(bounds) if len(bounds) > 1 else None
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
        f"| {row['client_seconds']:.2f} | {row['memory_mib']:.0f} |"
    )


def _needed(rows: list[dict[str, Any]]) -> list[str]:
    """Say how many labels each method needs for the mean certificates of `TARGETS`."""
    heads = " | ".join(f"{target:.0%}" for target in TARGETS)
    lines = [
        "Labels needed for a mean certificate: the first n whose mean is no more; from one n "
        "to another where two standard errors leave it open.",
        "",
        f"| method | {heads} |",
        f"|---{'|---' * len(TARGETS)}|",
    ]
    cells = {}
    for name in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == name]
        means = {
            n: _mean([row for row in own if row["n"] == n])
            for n in sorted({row["n"] for row in own})
        }
        found = {n: (mean["certificate"], mean["se"]) for n, mean in means.items()}
        last = found[max(found)][0]
        cells[name] = [labels_needed_about(found, target) for target in TARGETS], last
    for name, (needed, _) in sorted(cells.items(), key=lambda cell: cell[1][1]):
        lines.append(f"| {name} | {' | '.join(needed)} |")
    return [*lines, ""]
