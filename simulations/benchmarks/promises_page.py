"""The page of ``make bench-promises``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from itertools import count
from typing import Any

import numpy as np

from fedcert.certificates import binomial_upper_bound
from fedcert.simulations.benchmarks.episodes import excess
from fedcert.simulations.benchmarks.mutants_table import mutants_table

__all__ = ["promises_page"]

_HEAD = """# What certificates promise beside their bound

Measured by `{command}` (seeds {seeds}; {machine}). Delta is {delta:g}: half of it is the
bound's, the other half the promise's, each promise measured alone. *True* columns are means on
test examples of the clients, which nothing else used. What the promises mean, and how to ask
for them, is in [theory.md](theory.md#promises-beside-the-bound).
"""


def promises_page(record: Mapping[str, Any]) -> str:
    """Return the page.

    Parameters
    ----------
    record : Mapping
        The benchmark's record, or a part of it.
    """
    seeds = ", ".join(map(str, record["seeds"]))
    head = _HEAD.format(
        command=record["command"],
        seeds=seeds,
        machine=record["machine"].get("cpu", "one machine"),
        delta=record["delta"],
    )
    parts = [head]
    if record.get("kept"):
        parts += [_abstention(record["kept"], record["delta"]), _gain(record["kept"])]
    if any(row["promise"] == "sets" for row in record.get("kept", ())):
        parts.append(_sets(record["kept"]))
    if record.get("validity"):
        parts.append(_validity(record["validity"]))
    if record.get("mutants"):
        parts += mutants_table(record["mutants"])
    return "\n".join(parts)


def _groups(
    rows: list[dict[str, Any]], kind: str
) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["promise"] == kind:
            fixed = row["terms"].get("threshold") is not None
            found[row["scenario"], row["n"], row["recipe"], fixed].append(row)
    return found


def _abstention(rows: list[dict[str, Any]], delta: float) -> str:
    # The promise has half of delta, and the error among the answered half of that.
    budget = delta / 4
    lines = [
        "## Abstention",
        "",
        "*wrong* and *answered* are means of what is promised: at most so many wrong among the "
        "answered, and at least so many answered. *reached*: clients that are promised the "
        "wanted error; *and half*: those that are promised an answer to at least half as well. "
        "Clients with fewer than 16 answers are promised nothing of them (*silent*). *takes*: "
        "so many answers, none of them wrong, are the fewest that promise the wanted error; "
        "where fewer examples certify, nobody can be promised it. Where no threshold is "
        "expected to promise it, the one that comes nearest is taken.",
        "",
        "| scenario | n | recipe | threshold | wanted | takes | wrong | true | answered | true "
        "| reached | and half | silent | bound of all | clients |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (scenario, n, recipe, _), found in _groups(rows, "abstention").items():
        wanted = found[0]["terms"]["most_wrong"]
        said = [row["said"] for row in found]
        spoken = [row for row in found if "wrong_at_most" in row["said"]]
        enough = [row["said"] for row in spoken if row["said"]["wrong_at_most"] <= wanted]
        half = [each for each in enough if each["answered_at_least"] >= 0.5]
        lines.append(
            f"| {scenario} | {n} | {recipe} | "
            f"{_threshold(found[0]['terms'])} | {wanted:g} | {_fewest(wanted, budget)} | "
            f"{_mean([row['said']['wrong_at_most'] for row in spoken])} | "
            f"{_mean([row['true_wrong'] for row in spoken])} | "
            f"{_mean([each['answered_at_least'] for each in said])} | "
            f"{_mean([row['true_answered'] for row in found])} | {len(enough)} | {len(half)} | "
            f"{len(found) - len(spoken)} | {_mean([row['certificate'] for row in found])} | "
            f"{len(found)} |"
        )
    return "\n".join([*lines, ""])


def _threshold(terms: dict[str, Any]) -> str:
    fixed = terms.get("threshold")
    return "by the choosing examples" if fixed is None else f"by planners: {fixed:g}"


def _fewest(wanted: float, budget: float) -> int:
    """Return the fewest answers, none of them wrong, that promise the wanted error."""
    return next(m for m in count(1) if binomial_upper_bound(0, m, budget) <= wanted)


def _gain(rows: list[dict[str, Any]]) -> str:
    lines = [
        "## Gain",
        "",
        "By how much accuracy grows over the default adapter, or over the base model alone. "
        "*helps*: clients for whom that is certified to be above zero.",
        "",
        "| scenario | n | recipe | over | gain at least | true gain | helps | false "
        "| clients |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (scenario, n, recipe, _), found in _groups(rows, "gain").items():
        limits = [row["said"]["at_least"] for row in found]
        false = sum(row["said"]["at_least"] > row["true_gain"] for row in found)
        lines.append(
            f"| {scenario} | {n} | {recipe} | {found[0]['terms']['over']} | {_mean(limits)} | "
            f"{_mean([row['true_gain'] for row in found])} | {sum(v > 0 for v in limits)} | "
            f"{false} | {len(found)} |"
        )
    return "\n".join([*lines, ""])


def _sets(rows: list[dict[str, Any]]) -> str:
    lines = [
        "## Answer sets",
        "",
        "| scenario | n | recipe | labels in a set | missed at most | true "
        "| bound of one label | clients |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (scenario, n, recipe, _), found in _groups(rows, "sets").items():
        lines.append(
            f"| {scenario} | {n} | {recipe} | {found[0]['terms']['size']} | "
            f"{_mean([row['said']['missed_at_most'] for row in found])} | "
            f"{_mean([row['true_missed'] for row in found])} | "
            f"{_mean([row['certificate'] for row in found])} | {len(found)} |"
        )
    return "\n".join([*lines, ""])


def _validity(rows: list[dict[str, Any]]) -> str:
    worst: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        key = row["promise"], row["recipe"]
        if key not in worst or row["violations"] > worst[key]["violations"]:
            worst[key] = row
    lines = [
        "## Validity",
        "",
        f"Each promise in worlds where all that it says "
        f"is known, {rows[0]['episodes']:,} episodes each; shown is the world with the most "
        f"false promises. *p*: probability of as many if each is false with delta = "
        f"{rows[0]['delta']:g}.",
        "",
        "| promise | recipe | world | false | share | p |",
        "|---|---|---|---|---|---|",
    ]
    for (promise, recipe), row in worst.items():
        p = excess(row["violations"], row["episodes"], row["delta"])
        lines.append(
            f"| {promise} | {recipe} | {row['case']} | {row['violations']} | "
            f"{row['violations'] / row['episodes']:.4f} | {p:.3f} |"
        )
    return "\n".join([*lines, ""])


def _mean(values: list[float]) -> str:
    return f"{float(np.mean(values)):.3f}" if values else "-"
