"""``make bench-sampling``: what dropping, copying, and filtering do to certificates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from fedcert.certificates import SplitRecipe, UnionRecipe
from fedcert.simulations.benchmarks.options import without_options
from fedcert.simulations.benchmarks.publishing import between_markers, page_of, publish
from fedcert.simulations.benchmarks.sampling import (
    HANDLINGS,
    WORLDS,
    false_alarms,
    false_certificates,
)

__all__ = ["documents", "main", "measured", "table"]

EPISODES = 10_000
DELTA = 0.05
CANDIDATES = 20
_PAGE = "theory.md"


def main() -> None:
    """Measure, write ``results/sampling.json``, and put the table into docs/theory.md."""
    record = {
        "command": "make bench-sampling",
        "episodes": EPISODES,
        "delta": DELTA,
        "table": list(measured(EPISODES)),
    }
    publish("sampling", record, documents(record))


def documents(record: dict[str, Any]) -> dict[str, str]:
    """Return what is rendered from a record, by path below ``docs/``."""
    return {_PAGE: between_markers(page_of(_PAGE), "sampling", table(record))}


def measured(episodes: int) -> Iterator[dict[str, Any]]:
    """Play every handling in every world; yield a row for each with the share that was false.

    Parameters
    ----------
    episodes : int
        How many certificates, or watches, of each.

    Returns
    -------
    iterator of dict
        ``subject, world, handling, honest, episodes, violations``.
    """
    recipes = {
        kind.kind: kind(candidates=CANDIDATES, delta=DELTA)
        for kind in (UnionRecipe, SplitRecipe)
    }
    for number, world in enumerate(WORLDS):
        seed = (0, number)
        for name, recipe in recipes.items():
            for handling in HANDLINGS:
                false = false_certificates(recipe, world, handling, episodes, seed=seed)
                yield _row(name, world.name, handling, handling == HANDLINGS[0], false)
        for distinct in (False, True):
            counted = "distinct inputs are counted" if distinct else HANDLINGS[0]
            alarms = false_alarms(
                world, distinct=distinct, episodes=episodes, seed=seed, alpha=DELTA
            )
            yield _row("watch", world.name, counted, not distinct, alarms)


def _row(subject: str, world: str, handling: str, honest: bool, false: Any) -> dict[str, Any]:
    return {
        "subject": subject,
        "world": world,
        "handling": handling,
        "honest": honest,
        "episodes": len(false),
        "violations": int(false.sum()),
    }


def table(record: dict[str, Any]) -> str:
    """Render the shares that were false: a row for each handling, its worst world beside it."""
    error = math.sqrt(record["delta"] * (1 - record["delta"]) / record["episodes"])
    lines = [
        f"Shares that were false over {record['episodes']:,} episodes, each at the risk where "
        f"the bound is tight, in the worst of {len(WORLDS)} distributions. At most "
        f"{record['delta']:g} is promised; the standard error of such a share is {error:.3f}, "
        "and what is more than three of them above is bold:",
        "",
        "| | handling | false | in the distribution where |",
        "|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in record["table"]:
        groups.setdefault((row["subject"], row["handling"]), []).append(row)
    for (subject, handling), rows in sorted(groups.items(), key=lambda item: item[0][0]):
        worst = max(rows, key=lambda row: row["violations"])
        share = worst["violations"] / worst["episodes"]
        shown = f"**{share:.3f}**" if share > record["delta"] + 3 * error else f"{share:.3f}"
        lines.append(f"| {subject} | {handling} | {shown} | {worst['world']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    without_options("sampling", __doc__)
    main()
