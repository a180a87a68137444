"""From the records of three benchmarks to what the page on recipes compares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import stdev
from typing import Any

from fedcert.certificates import Recipe
from fedcert.planning import recipe_name
from fedcert.simulations.benchmarks.choosing_figures import PLAN, Figure, Task

__all__ = ["tasks_of"]

_REGRESSION = "embeddings + logistic regression"
_NAMED = {
    "planned": PLAN,
    "default": "default",
    "head from names of the default": "head",
    "tuned_head": "head",
    "fine-tuned from the default": "finetune",
    "union of": "search",
    "posterior mean": "posterior",
    "zero-shot": "alone",
    "head from names": "alone",
    _REGRESSION: "alone",
}
_METHODS = {
    "fedcert planned": PLAN,
    "fedcert union": "search",
    "fedcert posterior split": "posterior",
}


def tasks_of(records: Mapping[str, Mapping[str, Any]]) -> list[Task]:
    """Return what the records of named, methods and launched have, where there is a plan."""
    found = [
        *_of_named(records.get("named", {})),
        *_of_methods(records.get("methods", {})),
        *_of_launched(records.get("launched", {})),
    ]
    return [task for task in found if task.plan]


def _of_named(record: Mapping[str, Any]) -> Iterable[Task]:
    tasks: dict[tuple[str, str], Task] = {}
    for row in record.get("table", []):
        key = row["scenario"], row["setting"]
        setting = row["setting"] or "mean pooling"
        task = tasks.setdefault(key, Task(f"`{row['scenario']}` ({setting})", "named"))
        kind, n, seed = _kind(row["method"]), row["n"], row["seed"]
        if kind is None:
            continue
        gap, gap_se = row["above_planned"], row["above_planned_se"]
        figure = Figure(row["certificate"], row["clients"], gap, row["se"], gap_se)
        task.add(row["method"], kind, n, seed, figure)
        if kind == PLAN:
            task.limits.setdefault(n, {})[seed] = row["limit"]
    for plan in record.get("plans", []):
        if task_of := tasks.get((plan["scenario"], plan["setting"])):
            task_of.planned.setdefault(plan["n"], []).append(plan["recipe"])
    return tasks.values()


def _kind(method: str) -> str | None:
    """Return the kind of one of the named benchmark's methods; None for what is left out."""
    if method in _NAMED:
        return _NAMED[method]
    return _NAMED.get(method.rpartition(" ")[0])


def _of_methods(record: Mapping[str, Any]) -> Iterable[Task]:
    tasks: dict[str, Task] = {}
    rows = record.get("table", [])
    sends = {row["method"] for row in rows if row["up_bytes"]}
    plans = {
        (row["scenario"], row["n"], row["seed"]): row["certificate"]
        for row in rows
        if _METHODS.get(row["method"]) == PLAN
    }
    for row in rows:
        name, method, n, seed = row["scenario"], row["method"], row["n"], row["seed"]
        task = tasks.setdefault(name, Task(f"`{name}` (tuned)", "methods"))
        if (name, n, seed) in plans:
            kind = _METHODS.get(method) or ("federated" if method in sends else "alone")
            gap = row["certificate"] - plans[name, n, seed]
            task.add(method, kind, n, seed, Figure(row["certificate"], row["clients"], gap))
            task.limits[n] = {0: row["limit"]}
    for entry in record.get("chosen", []):
        if _METHODS.get(entry["name"]) == PLAN and entry["scenario"] in tasks:
            recipe = recipe_name(Recipe.from_config(entry["recipe"]))
            tasks[entry["scenario"]].planned.setdefault(entry["n"], []).append(recipe)
    return tasks.values()


def _of_launched(record: Mapping[str, Any]) -> Iterable[Task]:
    tasks: dict[str, Task] = {}
    rows = record.get("table", [])
    named = {case["scenario"] for case in record.get("cases", []) if case["named"]}
    sends = {row["method"] for row in rows if row["up_bytes"]}
    plans = {
        (row["scenario"], row["seed"]): row
        for row in rows
        if row["method"] == _planned_in(named, row)
    }
    for row in rows:
        name, method, seed = row["scenario"], row["method"], row["seed"]
        task = tasks.setdefault(name, Task(f"`{name}` (launched)", "launched"))
        if (plan := plans.get((name, seed))) is None:
            continue
        if method == _planned_in(named, row):
            kind = PLAN
        elif method in ("default", "prior"):
            kind = {"prior": "search"}.get(method, method)
        else:
            kind = "federated" if method in sends else "alone"
        for n, figure in _launched_figures(row, plan):
            task.add(method, kind, n, seed, figure)
        for each in plan["by_n"]:
            task.limits.setdefault(each["n"], {})[seed] = each["limit"]
    return tasks.values()


def _planned_in(named: set[str], row: Mapping[str, Any]) -> str:
    """Return which of the launched methods planned: scenarios with names plan by default."""
    return "prior" if row["scenario"] in named else "prior, planned"


def _launched_figures(
    row: Mapping[str, Any], plan: Mapping[str, Any]
) -> Iterable[tuple[int, Figure]]:
    """Yield a run's figures by n; at the largest there are bounds by client."""
    planned = {each["n"]: each["certificate"] for each in plan["by_n"]}
    for each in row["by_n"]:
        n, certificate = each["n"], each["certificate"]
        if n not in planned:
            continue
        se = gap_se = None
        if n == row["n"] == plan["n"] and len(row["bounds"]) == len(plan["bounds"]):
            pairs = zip(row["bounds"], plan["bounds"], strict=True)
            se, gap_se = _se(row["bounds"]), _se([own - other for own, other in pairs])
        yield n, Figure(certificate, row["clients"], certificate - planned[n], se, gap_se)


def _se(values: Sequence[float]) -> float | None:
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
