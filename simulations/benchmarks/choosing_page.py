"""Renders docs/which-recipe.md from what other benchmarks measured: which recipe suits when."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

from fedcert.reports.formats import decimal_up
from fedcert.simulations.benchmarks.pages import TARGETS, labels_needed

__all__ = ["CHOSEN_FROM", "choosing_page"]

CHOSEN_FROM = ("named", "certificates", "methods", "launched", "sweeps", "warm_start")
"""The records that the page is rendered from."""

_ALONE = (
    "embeddings + logistic regression",
    "head from names 0.5",
    "local LoRA",
    "zero-shot",
)
"""What takes nothing from a federation."""
_WARM = "standard"
_NOT_ASKED = ("planned, randomized bound",)

Cell = tuple[str, int]
Figures = dict[Cell, dict[str, float]]


def choosing_page(records: Mapping[str, dict[str, Any]]) -> str:
    """Return the page as Markdown.

    Parameters
    ----------
    records : Mapping[str, dict]
        Those of `CHOSEN_FROM`, by name. What is missing is left out.
    """
    figures = {**_of_named(records.get("named", {})), **_of_recipes(records)}
    parts = [
        "<!-- Rendered by `make bench-all`; do not edit. -->",
        "# Which recipe when",
        "",
        "With `certificate.recipe = planned` planning clients find this out for each "
        "federation ([planning.md](planning.md)). This page is for those who set a recipe by "
        "hand, or want to know what to expect. All figures are mean certificates over new "
        "clients and seeds, taken from the records of [named.md](named.md), "
        "[certificates.md](certificates.md), [benchmarks.md](benchmarks.md), "
        "[launched.md](launched.md), [sweeps.md](sweeps.md), and "
        "[warm-start.md](warm-start.md); [evidence.md](evidence.md) says by which code each "
        "was measured.",
        "",
        "## The lowest certificate at each number of labels",
        "",
        "*Behind* is how much the planned recipe is above the lowest of all recipes, which "
        "nobody knows beforehand. *Alone* is the best of what takes nothing from a federation: "
        "with names a head on the embeddings, one that starts at the names, or none at all, "
        "elsewhere a LoRA fine-tune, which half of the labels certify, on other new clients of "
        "the same federations. What ran on some clients alone is left out.",
        "",
        "| task | n | lowest | by | planned | behind | alone |",
        "|---|---|---|---|---|---|---|",
        *_lowest(figures),
        "",
        "## How many labels for a certificate",
        "",
        "The smallest measured number of labels whose mean certificate is at most the target.",
        "",
        f"| task | {' | '.join(f'{kind}, {t:.0%}' for t in TARGETS for kind in _KINDS)} |",
        "|---" * (1 + len(TARGETS) * len(_KINDS)) + "|",
        *_needed(figures),
        "",
        *_methods(records.get("launched", {})),
        *_pools(records.get("sweeps", {})),
        *_warmed(records.get("warm_start", {})),
    ]
    return "\n".join(parts)


def _of_named(record: dict[str, Any]) -> Figures:
    """Return certificates by task and n, then by method."""
    found: dict[Cell, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    rows = record.get("table", [])
    clients = {_place(row): row["clients"] for row in rows if row["method"] == "planned"}
    for row in rows:
        # The lowest of several means of a few clients is mostly luck.
        if row["method"] not in _NOT_ASKED and row["clients"] == clients[_place(row)]:
            found[_task(row), row["n"]][row["method"]].append(row["certificate"])
    return {
        cell: {
            method: fmean(values)
            for method, values in methods.items()
            # What some seeds lack is no mean of the same clients as the others.
            if len(values) == len(methods["planned"])
        }
        for cell, methods in found.items()
    }


def _task(row: Mapping[str, Any]) -> str:
    """Name the task: scenarios without settings stand in other records as well."""
    return f"{row['scenario']}, {row['setting'] or 'mean pooling'}"


def _place(row: Mapping[str, Any]) -> tuple[str, int, int]:
    return _task(row), row["n"], row["seed"]


def _of_recipes(records: Mapping[str, dict[str, Any]]) -> Figures:
    found: Figures = defaultdict(dict)
    for row in records.get("certificates", {}).get("table", []):
        found[row["scenario"], row["n"]][row["recipe"]] = row["mean_certificate"]
    alone: dict[Cell, list[float]] = defaultdict(list)
    for row in records.get("methods", {}).get("table", []):
        if row["method"] in _ALONE:
            alone[row["scenario"], row["n"]].append(row["certificate"])
    for cell in found.keys() & alone.keys():
        found[cell]["local LoRA"] = fmean(alone[cell])
    return found


_KINDS = ("planned", "best recipe", "alone")


def _figure(kind: str, methods: Mapping[str, float]) -> float | None:
    if kind == "planned":
        return methods["planned"]
    values = [value for name, value in methods.items() if (name in _ALONE) == (kind == "alone")]
    return min(values, default=None)


def _lowest(figures: Figures) -> Iterator[str]:
    for (task, n), methods in figures.items():
        best = min(methods, key=lambda name: (methods[name], name != "planned"))
        alone = _figure("alone", methods)
        cells = (
            task,
            str(n),
            decimal_up(methods[best]),
            best,
            decimal_up(methods["planned"]),
            decimal_up(methods["planned"] - methods[best]),
            "" if alone is None else decimal_up(alone),
        )
        yield f"| {' | '.join(cells)} |"


def _needed(figures: Figures) -> Iterator[str]:
    for task in dict.fromkeys(task for task, _n in figures):
        sizes = {n: methods for (name, n), methods in figures.items() if name == task}
        cells = [_smallest(sizes, kind, target) for target in TARGETS for kind in _KINDS]
        yield f"| {task} | {' | '.join(cells)} |"


def _smallest(sizes: Mapping[int, Mapping[str, float]], kind: str, target: float) -> str:
    found = ((n, _figure(kind, methods)) for n, methods in sizes.items())
    values = {n: value for n, value in found if value is not None}
    if not values:
        return "not measured"
    needed = labels_needed(values, target)
    return "none was enough" if needed is None else str(needed)


def _pools(record: dict[str, Any]) -> Iterator[str]:
    """Say from which pool on a prior is ahead of training alone."""
    rows = [row for row in record.get("table", []) if row["sweep"] == "pool"]
    if not rows:
        return
    yield "## From which pool on the prior pays"
    yield ""
    yield (
        f"The best recipe on each prior at n = {record['n']}, beside a LoRA fine-tune alone, "
        "which half of the same labels train and the other half certify."
    )
    yield ""
    priors = list(dict.fromkeys(row["prior"] for row in rows))
    yield f"| task | adapters in the pool | {' | '.join(priors)} | alone |"
    yield "|---" * (3 + len(priors)) + "|"
    for task in dict.fromkeys(row["scenario"] for row in rows):
        for pool in sorted({row["pool"] for row in rows if row["scenario"] == task}):
            here = [row for row in rows if (row["scenario"], row["pool"]) == (task, pool)]
            best = [_best([row for row in here if row["prior"] == prior]) for prior in priors]
            alone = min(row["certificate"] for row in here if row["recipe"] in _ALONE)
            yield f"| {task} | {pool} | {' | '.join(best)} | {decimal_up(alone)} |"
    yield ""


def _methods(record: dict[str, Any]) -> Iterator[str]:
    """Say where the prior is ahead of what other methods publish and learn."""
    rows = record.get("table", [])
    if not rows:
        return
    yield "## The prior beside other methods"
    yield ""
    yield (
        "Each launched by its setting, on the seeds that all of them have; the prior with the "
        "planned recipe where that was measured. Which of the others is best nobody knows "
        "beforehand."
    )
    yield ""
    yield "| task | n | seeds | prior | best other method | which |"
    yield "|---|---|---|---|---|---|"
    found: dict[Cell, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        for each in row["by_n"]:
            by_seed = found[row["scenario"], each["n"]][row["method"]]
            by_seed[row["seed"]] = each["certificate"]
    for (task, n), methods in found.items():
        ours = max((name for name in methods if name.startswith("prior")), default=None)
        others = [name for name in methods if not name.startswith("prior")]
        if ours is None or not others:
            continue
        common = set.intersection(*({*methods[name]} for name in (ours, *others)))
        if not common:
            continue
        means = {
            name: fmean(methods[name][seed] for seed in sorted(common))
            for name in (ours, *others)
        }
        best = min(others, key=lambda name: means[name])
        figures = str(n), str(len(common)), decimal_up(means[ours]), decimal_up(means[best])
        yield f"| {' | '.join([task, *figures, best])} |"
    yield ""


def _warmed(record: dict[str, Any]) -> Iterator[str]:
    """Say what rounds on the base model change, and which recipes are planned then."""
    rows = record.get("table", [])
    if not any(row["warm_start"] == _WARM for row in rows):
        return
    yield "## With a warm start, and without"
    yield ""
    yield (
        "Planned certificates on the base model as it was, and after federated rounds of "
        "standard retraining (`warm_start.personal = head`), with the recipes that were "
        "planned, of those that [warm-start.md](warm-start.md) names. On `digits` planners "
        "expect too much after the rounds, and choose by that."
    )
    yield ""
    yield "| task | n | without | recipes | with | recipes |"
    yield "|---|---|---|---|---|---|"
    for task, n in dict.fromkeys((row["scenario"], row["n"]) for row in rows):
        here = [row for row in rows if (row["scenario"], row["n"]) == (task, n)]
        by = {
            kind: {row["seed"]: row for row in here if row["warm_start"] == kind}
            for kind in ("none", _WARM)
        }
        both = sorted(by["none"].keys() & by[_WARM].keys())
        if both:
            cells = [
                cell
                for kind in by
                for cell in (
                    decimal_up(fmean(by[kind][seed]["certificate"] for seed in both)),
                    ", ".join(dict.fromkeys(by[kind][seed]["recipe"] for seed in both)),
                )
            ]
            yield f"| {' | '.join([task, str(n), *cells])} |"
    yield ""


def _best(rows: list[dict[str, Any]]) -> str:
    searched = [row for row in rows if row["recipe"] not in _ALONE]
    if not searched:
        return ""
    best = min(searched, key=lambda row: row["certificate"])
    return f"{decimal_up(best['certificate'])} ({best['recipe']})"
