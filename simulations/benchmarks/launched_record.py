"""The record of `make bench-launched`: what is added to runs that were launched by parts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["launched_record"]


def launched_record(
    found: Mapping[str, Any], kept: Mapping[str, Any], *, order: Sequence[str]
) -> dict[str, Any]:
    """Put runs of the last record beside new ones, and add each scenario's limit.

    Runs of a scenario whose settings in the benchmark are others by now are left out.

    Parameters
    ----------
    found : Mapping[str, Any]
        What was launched now: the same parts as in the record, but for the limits.
    kept : Mapping[str, Any]
        The last record; empty if nothing of it is kept.
    order : sequence of str
        Scenarios, as they stand in the record.

    Returns
    -------
    dict
        The record.
    """
    if not kept:
        return {**found, "table": _with_limits(found["table"])}
    cases = {case["scenario"]: case for case in json.loads(json.dumps(found["cases"]))}
    old = {case["scenario"]: case for case in kept["cases"]}
    same = {name for name, case in old.items() if cases.get(name, case) == case}

    def beside(part: str, *names: str) -> list[dict[str, Any]]:
        """Return rows of both, of which new ones take the place of old ones."""
        own = [row for row in kept[part] if row["scenario"] in same]
        rows = {tuple(row[name] for name in names): row for row in [*own, *found[part]]}
        return sorted(rows.values(), key=place)

    def place(row: Mapping[str, Any]) -> tuple[int, int]:
        return row.get("seed", 0), order.index(row["scenario"])

    run = ("scenario", "method", "seed")
    table = beside("table", *run)
    refused = beside("refused", "scenario", "method")
    launched = {tuple(row[name] for name in run) for row in table}
    never = {(row["scenario"], row["method"]) for row in refused}
    waiting = [*found["unfinished"], *kept["unfinished"]]
    missing = {name: why for name, why in kept["missing"].items() if name not in cases}
    return {
        **found,
        "seeds": sorted({*kept["seeds"], *found["seeds"]}),
        "cases": sorted((old | cases).values(), key=place),
        "missing": missing | found["missing"],
        "refused": refused,
        "unfinished": [
            dict(zip(run, one, strict=True))
            for one in dict.fromkeys(tuple(each[name] for name in run) for each in waiting)
            if one not in launched and one[:2] not in never
        ],
        "table": _with_limits(table),
        "trade": beside("trade", "scenario", "seed", "pull", "keep"),
    }


def _with_limits(table: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add the *limit* of each scenario, seed and n: the lowest of its methods' own limits."""
    lowest: dict[tuple[str, int, int], float] = {}
    for row in table:
        for each in row["by_n"]:
            key = row["scenario"], row["seed"], each["n"]
            lowest[key] = min(each["own_limit"], lowest.get(key, 1.0))
    return [
        row
        | {
            "by_n": [
                each | {"limit": lowest[row["scenario"], row["seed"], each["n"]]}
                for each in row["by_n"]
            ]
        }
        for row in table
    ]
