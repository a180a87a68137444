"""Two parts of the page on recipes: from which pool on a prior pays, and warm starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fedcert.simulations.benchmarks.choosing_advice import sizes_in_words
from fedcert.simulations.benchmarks.choosing_figures import Mean, mean_of
from fedcert.simulations.benchmarks.sweeps_page import local_as_before

__all__ = ["from_which_pool", "pool_in_words", "warm_start_in_words", "with_a_warm_start"]

_ALONE = "local LoRA"
_NONE, _WARM = "none", "standard"

Rows = Sequence[Mapping[str, Any]]


def from_which_pool(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield from which pool on each recipe is ahead of training alone.

    Parameters
    ----------
    record : Mapping[str, Any]
        That of the sweeps; the part is left out where it has no pools.
    """
    rows = [row for row in record.get("table", []) if row["sweep"] == "pool"]
    if not rows:
        return
    clients = max(row["clients"] for row in rows)
    yield "## From which pool on the prior pays"
    yield ""
    yield (
        f"Mean certificates at n = {record['n']}, on {clients} new clients of "
        f"{max(len(row['seeds']) for row in rows)} seeds ([sweeps.md](sweeps.md)). Nobody "
        "planned here: each recipe stands for itself, and none is the best by hindsight. "
        f"*{_ALONE}* learns alone, from half of the labels.{local_as_before(record)} ± is the "
        "standard error over clients. The record has no differences by client: a difference is "
        "held against the standard errors of two separate means, which misses small ones."
    )
    yield ""
    recipes = list(dict.fromkeys(row["recipe"] for row in rows))
    yield f"| task | prior | adapters in the pool | {' | '.join(recipes)} |"
    yield "|---" * (3 + len(recipes)) + "|"
    for key in dict.fromkeys((row["scenario"], row["prior"], row["pool"]) for row in rows):
        here = {row["recipe"]: row for row in rows if _pool(row) == key}
        cells = [_certificate(here[name]) if name in here else "" for name in recipes]
        yield f"| `{key[0]}` | {key[1]} | {key[2]} | {' | '.join(cells)} |"
    yield ""
    for task, prior in dict.fromkeys((row["scenario"], row["prior"]) for row in rows):
        own = [row for row in rows if (row["scenario"], row["prior"]) == (task, prior)]
        said = [_against_alone(own, name) for name in recipes if name != _ALONE]
        yield f"* `{task}`, {prior} prior, against {_ALONE}: {'; '.join(said)}."
    yield ""


def _pool(row: Mapping[str, Any]) -> tuple[str, str, int]:
    return row["scenario"], row["prior"], row["pool"]


def _certificate(row: Mapping[str, Any]) -> str:
    return f"{row['certificate']:.3f} ± {row['se']:.3f}"


def pool_in_words(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each task: with which pools any recipe is as low as alone."""
    rows = [row for row in record.get("table", []) if row["sweep"] == "pool"]
    words = {
        1: "every recipe is higher than training alone",
        0: "the lowest is no different from training alone",
        -1: "the lowest is lower than training alone",
    }
    for task in dict.fromkeys(row["scenario"] for row in rows):
        own = [row for row in rows if row["scenario"] == task]
        best: dict[int, int] = {}
        for prior, name in {(row["prior"], row["recipe"]) for row in own}:
            for pool, sign in _signs([row for row in own if row["prior"] == prior], name):
                best[pool] = min(sign, best.get(pool, 1))
        said = [
            f"{_of_pools(here, sorted(best))} {words[sign]}"
            for sign in words
            if (here := [pool for pool in sorted(best) if best[pool] == sign])
        ]
        if said:
            yield (
                f"* **How many adapters the prior is made of** (`{task}`, n = {record['n']}): "
                f"{'; '.join(said)}."
            )


def _signs(rows: Rows, recipe: str) -> list[tuple[int, int]]:
    """Return by pool whether a recipe is higher than training alone (1), or lower (-1)."""
    alone = {row["pool"]: row for row in rows if row["recipe"] == _ALONE}
    own = {row["pool"]: row for row in rows if row["recipe"] == recipe != _ALONE}
    pools = sorted(alone.keys() & own.keys())
    return [(pool, _apart(own[pool], alone[pool]).sign) for pool in pools]


def _against_alone(rows: Rows, recipe: str) -> str:
    """Say with which pools a recipe is lower than training alone, or higher."""
    signs = dict(_signs(rows, recipe))
    pools = [*signs]
    parts = []
    for sign, words in ((-1, "lower"), (0, "no difference"), (1, "higher")):
        if here := [pool for pool in pools if signs[pool] == sign]:
            parts.append(f"{words} {_of_pools(here, pools)}")
    return f"{recipe} {', '.join(parts)}"


def _of_pools(here: Sequence[int], pools: Sequence[int]) -> str:
    words = sizes_in_words(here, pools).replace("n = ", "").replace("every n", "any size")
    return words.replace("at ", "with " if "any" not in words else "at ")


def _apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> Mean:
    """Return the difference of two means, as if they were of separate clients."""
    se = (one["se"] ** 2 + other["se"] ** 2) ** 0.5
    return Mean(one["certificate"] - other["certificate"], se, 1, one["clients"])


def with_a_warm_start(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield what rounds on the base model change, and which recipes are planned then.

    Parameters
    ----------
    record : Mapping[str, Any]
        That of warm starts; the part is left out where nothing was measured with one.
    """
    rows = record.get("table", [])
    if not any(row["warm_start"] == _WARM for row in rows):
        return
    yield "## With a warm start, and without"
    yield ""
    yield (
        "Planned certificates on the base model as it was, and after federated rounds of "
        "standard retraining (`warm_start.personal = head`), and how much higher the latter "
        "are on the same seeds: below 0 the warm start is better. ± is the standard error over "
        "seeds; bold is more than two of them from 0. [warm-start.md](warm-start.md) has the "
        "settings and the menus that were planned from, and what *first attempt* was."
    )
    yield ""
    yield (
        "| task | n | seeds, clients | without | with | difference | planned without "
        "| planned with |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for (task, n), pairs in _pairs(rows).items():
        yield f"| {' | '.join([f'`{task}`', str(n), *_warmed(pairs)])} |"
    yield ""


def warm_start_in_words(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield where a warm start makes certificates lower, and where it does not."""
    gaps = {cell: _change(pairs) for cell, pairs in _pairs(record.get("table", [])).items()}
    if not gaps:
        return
    seeds = min(gap.seeds for gap in gaps.values())
    yield f"* **A warm start** of the base model, beside none ({seeds} seeds or more):"
    for sign, words in ((-1, "lower"), (0, "no difference"), (1, "higher")):
        places = []
        for task in dict.fromkeys(task for task, _ in gaps):
            every = [n for name, n in gaps if name == task]
            if here := [n for n in every if gaps[task, n].sign == sign]:
                places.append(f"`{task}` {sizes_in_words(here, every)}")
        if places:
            yield f"  * {words}: {'; '.join(places)}"


Pairs = list[tuple[Mapping[str, Any], Mapping[str, Any]]]


def _pairs(rows: Rows) -> dict[tuple[str, int], Pairs]:
    """Return by task and n the rows without and with a warm start, of seeds that have both."""
    found: dict[tuple[str, int], Pairs] = {}
    for row in rows:
        if row["warm_start"] == _NONE:
            key = row["scenario"], row["n"]
            same = [one for one in rows if (one["scenario"], one["n"]) == key]
            found.setdefault(key, []).extend(
                (row, one)
                for one in same
                if (one["seed"], one["warm_start"]) == (row["seed"], _WARM)
            )
    return {key: pairs for key, pairs in found.items() if pairs}


def _change(pairs: Pairs) -> Mean:
    return mean_of(
        [(warm["certificate"] - cold["certificate"], None, warm["clients"])
         for cold, warm in pairs]
    )  # fmt: skip


def _warmed(pairs: Pairs) -> Iterator[str]:
    gap = _change(pairs)
    cold, warm = ([pair[side] for pair in pairs] for side in (0, 1))
    said = f"{gap.value:+.3f}" + ("" if gap.se is None else f" ± {gap.se:.3f}")
    yield f"{gap.seeds}, {gap.clients}"
    for rows in (cold, warm):
        yield f"{sum(row['certificate'] for row in rows) / len(rows):.3f}"
    yield f"**{said}**" if gap.sign else said
    for rows in (cold, warm):
        yield ", ".join(dict.fromkeys(row["recipe"] for row in rows))
