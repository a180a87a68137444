"""Renders docs/warm-start.md from what ``make bench-warm-start`` measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedcert.simulations.benchmarks.pages import left_out, machine_line, standard_error
from fedcert.simulations.benchmarks.warm_start_tried import SEED

__all__ = ["warm_start_page"]

_NAMES = {
    "none": "none",
    "standard": "standard: the head alone is personal",
    "meta": "meta: a whole adapter is personal",
    "central": "central: standard, client after client, no average",
    "private": "private: meta, with noise for epsilon = 8",
}
# What records said nothing of measured these.
_FIRST = ("none", "standard", "meta", "central")
_MOST_LOST = 0.1  # of what a warm start gains, to privacy
# By scenario and n: what the mean certificate was to be, as a share of that without.
_SHARES = {("named-intents, mixed", 16): 0.9}
# By how much it was to fall, in every seed.
_FALLS = {("intents", 64): 0.02, ("intents, first attempt", 64): 0.02}

Row = dict[str, Any]


def warm_start_page(record: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    parts = [*_intro(), *left_out(record)]
    for scenario in dict.fromkeys(row["scenario"] for row in record["table"]):
        rows = [row for row in record["table"] if row["scenario"] == scenario]
        parts += [f"## `{scenario}`", "", *_about(record, scenario, rows), ""]
        parts += [*_table(rows), "", *_goals(rows, scenario), ""]
    parts += _tried(record.get("tried", []))
    parts += _not_run(record)
    parts += [machine_line(record), f"Command: `{record['command']}`."]
    return "\n".join(parts).rstrip() + "\n"


def _intro() -> list[str]:
    return [
        "<!-- Rendered by `make bench-warm-start`; do not edit. -->",
        "# What a warm start is worth",
        "",
        "Before adapters are harvested, upstream clients improve the base model in federated "
        "rounds ([flower.md](flower.md#warm-start) says how). Everything after it is as ever: "
        "adapters, prior, plan, certificates. Examples that trained the base model train no "
        "adapter; without a warm start all of them train adapters. Planning clients and new "
        "clients train no base model. How the settings of the rounds came about is "
        "[below](#settings-that-were-tried).",
        "",
        "* *certificate*: mean bound of the planned recipe over new clients and seeds, ± its "
        "standard error over clients; *against none*: its ratio to that without a warm start.",
        "* *expected*: the certificate that planning clients expected. Nobody trains on what "
        "they have, which are intents on `named-intents` and inputs on `intents` "
        "([planning.md](planning.md#who-plans)). On `digits` all upstream clients draw from "
        "one pool of images: the base model has seen planners', and they expect too much.",
        "* *error*: on the clients' examples that nothing else used.",
        "* *false*: certificates below the true error, of how many.",
        "* *loss*: of upstream clients after their personal steps, in the first round and in "
        "the last, in nats; on those examples that train the base model.",
        "* *uploaded*: by all clients in all rounds, float32.",
        "* *private*: central differential privacy over all rounds, for replacing all examples "
        "of one client ([privacy.md](privacy.md#a-private-warm-start)).",
        "",
        "There is no row for an averaged head on a base model that stays as it was. In these "
        "scenarios labels are the clients' own: names of their own, or whatever each of them "
        'calls "mine". No two clients mean the same by a row of a head, so there is none to '
        "share. The trained head of an adapter also takes the place of the base model's, so "
        "averaging that one would change nothing after it. [methods.md](methods.md) measures "
        "averages of whole adapters.",
        "",
    ]


def _about(record: dict[str, Any], scenario: str, rows: list[Row]) -> list[str]:
    cell = next(cell for cell in record["cells"] if cell["scenario"] == scenario)
    seeds = ", ".join(str(seed) for seed in sorted({row["seed"] for row in rows}))
    warm = ", ".join(f"{key} = {value}" for key, value in cell["warm_start"].items())
    kinds = f"; the plan chooses among {' and '.join(cell['kinds'])}" if cell["kinds"] else ""
    return [
        f"{_upstream(cell)}, {cell['planners']} that plan, {cell['new']} new "
        f"ones; seeds {seeds}; {warm}{kinds}."
    ]


def _upstream(cell: dict[str, Any]) -> str:
    fitted, trunk = cell["fitted"], cell.get("trunk", cell["fitted"])
    if trunk == fitted:
        return f"{fitted} upstream clients"
    return f"{trunk} upstream clients, of which {fitted} train adapters"


def _table(rows: list[Row]) -> list[str]:
    lines = [
        "| warm start | n | recipe | expected | certificate | against none | error | false "
        "| loss | uploaded |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for n in sorted({row["n"] for row in rows}):
        for method, name in _NAMES.items():
            mine = [row for row in rows if (row["warm_start"], row["n"]) == (method, n)]
            if mine:
                lines.append(f"| {name} | {n} | {_cells(mine, _against(rows, mine, n))} |")
    return lines


def _cells(mine: list[Row], ratio: float | None) -> str:
    kinds = ("expected", "certificate", "error")
    mean = {key: float(np.mean([row[key] for row in mine])) for key in kinds}
    se = float(np.sqrt(np.sum(np.square([row["se"] for row in mine])))) / len(mine)
    clients = sum(row["clients"] for row in mine)
    warm = mine[0]["rounds"] > 0
    return " | ".join(
        [
            ", ".join(dict.fromkeys(row["recipe"] for row in mine)),
            f"{mean['expected']:.3f}",
            f"{mean['certificate']:.3f} ± {se:.3f}",
            f"{ratio:.2f}" if ratio is not None and warm else "-",
            f"{mean['error']:.3f}",
            f"{sum(row['violations'] for row in mine)} of {clients}",
            f"{mine[0]['loss_first']:.3f} to {mine[0]['loss_last']:.3f}" if warm else "-",
            f"{mine[0]['bytes_up'] / 2**20:.1f} MiB" if warm else "-",
        ]
    )


def _against(rows: list[Row], mine: list[Row], n: int) -> float | None:
    """Return the ratio to no warm start, on the seeds that both have."""
    without = _by_seed(rows, "none", n)
    both = [row for row in mine if row["seed"] in without]
    if not both:
        return None
    return float(
        np.mean([row["certificate"] for row in both])
        / np.mean([without[row["seed"]] for row in both])
    )


def _goals(rows: list[Row], scenario: str) -> list[str]:
    lines = []
    for method in ("meta", "standard"):
        for n in (n for name, n in _SHARES if name == scenario):
            mine = [row for row in rows if (row["warm_start"], row["n"]) == (method, n)]
            ratio, share = _against(rows, mine, n), _SHARES[scenario, n]
            if ratio is not None:
                lines.append(
                    f"* Asked for beforehand: at n = {n} at most {share:g} times the "
                    f"certificate without a warm start. {_verdict(ratio <= share)} by "
                    f"{method}: {ratio:.2f}."
                )
        for n in (n for name, n in _FALLS if name == scenario):
            falls, least = _falls(rows, method, n), _FALLS[scenario, n]
            if falls:
                each = ", ".join(f"{fall:.3f} (seed {seed})" for seed, fall in falls.items())
                verdict = _verdict(min(falls.values()) >= least)
                if len(falls) < len(_by_seed(rows, "none", n)):
                    verdict += ", on the seeds so far,"
                lines.append(
                    f"* Asked for beforehand: at n = {n} lower than without a warm start by "
                    f"{least:g} or more in every seed. {verdict} by {method}: lower by {each}."
                )
    return lines + _lost(rows)


def _verdict(met: bool) -> str:
    return "**Met**" if met else "**Missed**"


def _falls(rows: list[Row], method: str, n: int) -> dict[int, float]:
    """Return by seed how much lower the mean certificate is than without a warm start."""
    without, mine = _by_seed(rows, "none", n), _by_seed(rows, method, n)
    return {
        seed: without[seed] - bound for seed, bound in sorted(mine.items()) if seed in without
    }


def _by_seed(rows: list[Row], method: str, n: int) -> dict[int, float]:
    """Return the mean certificates of a way to warm up."""
    return {
        row["seed"]: row["certificate"]
        for row in rows
        if (row["warm_start"], row["n"]) == (method, n)
    }


def _lost(rows: list[Row]) -> list[str]:
    """Return what privacy cost of the gain, at every n."""
    lost, said = [], []
    for n in sorted({row["n"] for row in rows}):
        by = {name: _by_seed(rows, name, n) for name in ("none", "meta", "private")}
        seeds = sorted(by["none"].keys() & by["meta"].keys() & by["private"].keys())
        if not seeds:
            continue
        gains = np.array([by["none"][seed] - by["meta"][seed] for seed in seeds])
        costs = np.array([by["private"][seed] - by["meta"][seed] for seed in seeds])
        if gains.mean() <= 0:
            said.append(f"at n = {n} there is no gain")
            continue
        lost.append(float(costs.mean() / gains.mean()))
        said.append(f"{lost[-1]:.0%} of {_with_error(gains)} at n = {n}")
    if not said:
        return []
    if not lost:
        return ["Noise cannot cost any gain here: without it the warm start has none."]
    return [
        f"Asked for beforehand: noise costs at most {_MOST_LOST:.0%} of the gain. "
        f"{_verdict(max(lost) <= _MOST_LOST)}: {'; '.join(said)}."
    ]


def _with_error(gains: np.ndarray) -> str:
    """Say a mean gain with its standard error over seeds; one seed has none."""
    if len(gains) == 1:
        return f"{gains[0]:.3f} (one seed)"
    return f"{gains.mean():.3f} ± {standard_error(gains):.3f}"


def _tried(rows: list[Row]) -> list[str]:
    if not rows:
        return []
    lines = [
        "## Settings that were tried",
        "",
        f"On seed {SEED}, which is not measured above: the mean error of new clients with a "
        "head that they train on 32 examples, and where labels have names with these alone. "
        "Neither prior nor plan nor certificate is in it. *Chosen* is what standard retraining "
        "has above; names alone decided where there are names, and else heads. Meta has the "
        "same settings, central training a rate of its own. The benchmark measures this table "
        "itself, after choices that had been made on runs of the same kind.",
    ]
    for scenario in dict.fromkeys(row["scenario"] for row in rows):
        mine = [row for row in rows if row["scenario"] == scenario]
        every = [row["settings"] for row in mine if row["settings"]]
        # Alone those that anything differs in.
        keys = [
            key for key in (every or [{}])[0] if len({str(each[key]) for each in every}) > 1
        ]
        kinds = list(mine[0]["errors"])
        lines += ["", f"`{scenario}`:", ""]
        lines += [f"| warm start | {' | '.join([*keys, *kinds])} | chosen |"]
        lines += ["|" + "---|" * (len(keys) + len(kinds) + 2)]
        for row in mine:
            about = [str(row["settings"].get(key, "-")) for key in keys]
            errors = [f"{row['errors'][kind]:.3f}" for kind in kinds]
            chosen = "yes" if row["chosen"] else ""
            lines.append(f"| {row['warm_start']} | {' | '.join(about + errors)} | {chosen} |")
    return [*lines, ""]


def _not_run(record: dict[str, Any]) -> list[str]:
    measured = {(row["scenario"], row["warm_start"], row["seed"]) for row in record["table"]}
    wanted = [
        (cell["scenario"], method, seed)
        for cell in record["cells"]
        for method in cell.get("methods", _FIRST)
        for seed in record["seeds"]
    ]
    absent = [
        f"`{scenario}` {method} (seed {seed})"
        for scenario, method, seed in wanted
        if (scenario, method, seed) not in measured
    ]
    absent += [f"{each}, tried" for each in record.get("untried", [])]
    if not absent:
        return []
    listed = "; ".join(absent)
    return [
        "## Not measured yet",
        "",
        f"The benchmark goes on where it stopped; not measured so far: {listed}.",
        "",
    ]
