"""Renders docs/launched.md and its figures from the launched methods' rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedcert.certificates import binomial_upper_bound
from fedcert.reports.curves import Curve, draw_curves
from fedcert.reports.formats import decimal_up, plural
from fedcert.reports.svg import PALETTE, WIDE
from fedcert.settings import RunSettings
from fedcert.simulations.benchmarks.launched_costs_page import costs
from fedcert.simulations.benchmarks.pages import (
    TARGETS,
    by_scenario,
    labels_needed_about,
    left_out,
    machine_line,
    standard_error,
)

__all__ = ["launched_figures", "launched_page"]

_LEAST = RunSettings().planning_sizes()[0]

_KEYS = (
    "error", "worst_decile_error", "certificate", "nonvacuous", "up_bytes", "down_bytes",
)  # fmt: skip


def launched_page(record: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    parts = [
        "<!-- Rendered by `make bench-launched`; do not edit. -->",
        "# Methods, launched",
        "",
        "Each row is a run of `fedcert simulate SCENARIO --set method=METHOD`, with its "
        "protocol, its traffic, and its signed certificates. All methods of a scenario have "
        "the settings ([methods.md](methods.md)) that its section names, which cut rounds and "
        "steps so that all of this takes hours: methods that average an adapter, or train "
        "nets, have fewer rounds than by default, and may lose more by that than those that "
        "train one adapter a client. Nobody tuned these settings to the measured clients, and "
        "they are the same whatever n is: methods that fine-tune learn from half of the "
        "examples (`personal.choose = 0.5`). The exception is *prior, planned*, and on "
        "`named-intents` *prior*, whose settings plan by default: a quarter of their upstream "
        "clients trains no adapter, and chooses a recipe for each n instead, with the share of "
        f"the examples that it learns from. They plan for n = {_LEAST} and more; with fewer "
        f"labels the recipe for {_LEAST} is followed. [benchmarks.md](benchmarks.md) tunes "
        "each method alike, without messages. On `named-intents`, where an adapter has no "
        "head, methods that fine-tune have `personal.tuned_head=true`: two finalists share "
        "delta, which "
        f"costs {_halved(8)} where 8 examples certify and none is wrong, and {_halved(64)} "
        "where 64 do. Means over new clients, and over seeds.",
        "",
        "* *n = ...*: the mean bound, rounded up. At the largest n those are the signed "
        "certificates, ± the larger of their standard errors over clients and over seeds; at "
        "the others, what the same recipes give on that many of the same clients' labels. "
        "*20%*, *10%*: the first n whose mean is no more; from one n to another where two "
        "standard errors leave it open (over seeds; with one seed, that over clients at the "
        "largest n).",
        "* *limit of n = ...'s adapters*: what a certificate would be if the adapters of the "
        "best method came for free. They are those that it exports at the largest n, in every "
        "column: none of the labels that they learned from is counted, so at a smaller n no "
        "method can be expected to come so low.",
        "* *lowest*: the lowest bound of a client, and how many of the clients have it. Where "
        "most have it, hardly any of their certifying examples is wrong, and methods differ by "
        "how many examples certify, not by what they learn.",
        "* *error*: on the client's own tests; *worst tenth*: the mean over the tenth of the "
        "clients with the largest errors.",
        "* *elsewhere*: the same adapter's error on the other new clients' tests; - where some "
        "adapters move the embeddings of their own labels' names, which nobody else has.",
        "* *sent*, *received*: KiB of an upstream client in all its messages, and to a new "
        "client, bundle and basis of the space included.",
        "* *seconds*: of a new client, the median over seeds; other runs shared the machine.",
        "",
        machine_line(record),
        _hours(record["table"]),
        "",
        *left_out(record),
    ]
    for scenario, rows in by_scenario(record):
        parts += _scenario(scenario, rows, record)
    return "\n".join([*parts, *_not_run(record)]).rstrip() + "\n"


def _halved(n: int, delta: float = 0.05) -> str:
    """Return how much higher the lowest bound is if two finalists share delta."""
    both, one = (binomial_upper_bound(0, n, share) for share in (delta / 2, delta))
    return f"{both - one:.3f}"


def _not_run(record: dict[str, Any]) -> list[str]:
    """Say which runs are left; a row has the seeds that are there."""
    left = record.get("unfinished", [])
    lines = []
    for scenario in dict.fromkeys(entry["scenario"] for entry in left):
        here = [entry for entry in left if entry["scenario"] == scenario]
        parts = []
        for seed in dict.fromkeys(entry["seed"] for entry in here):
            methods = [entry["method"] for entry in here if entry["seed"] == seed]
            there = any(
                (row["scenario"], row["seed"]) == (scenario, seed) for row in record["table"]
            )
            parts.append(f"seed {seed} ({', '.join(methods) if there else 'all'})")
        lines.append(f"* `{scenario}`: {'; '.join(parts)}")
    return ["## Not measured yet", "", *lines] if lines else []


def _hours(rows: list[dict[str, Any]]) -> str:
    """Say how long all of it took, so that nobody begins it by mistake."""
    hours = sum(row["seconds"] for row in rows) / 3600
    return f"The {len(rows)} runs took {hours:.1f} hours; a benchmark that stopped goes on."


def launched_figures(record: dict[str, Any]) -> dict[str, str]:
    """Return a figure of what pull and keep trade for each scenario, by its path."""
    figures = {}
    for scenario in dict.fromkeys(row["scenario"] for row in record["trade"]):
        rows = [row for row in record["trade"] if row["scenario"] == scenario]
        curves = []
        for color, keep in zip(PALETTE, sorted({row["keep"] for row in rows}), strict=False):
            for key, dotted in (("error", False), ("elsewhere", True)):
                points = _means(rows, keep, key)
                curves.append(Curve(f"keep {keep:g}", color, points, dotted=dotted))
        figures[_figure(scenario)] = draw_curves(
            curves,
            name=f"launched-{scenario}-trade",
            label="Own error and error elsewhere by the pull, one color for each share kept",
            x_title="personal.pull",
            y_title="error on own tests (solid), elsewhere (dotted)",
            base=10,
            width=WIDE,
            dotted="elsewhere",
        )
    return figures


def _figure(scenario: str) -> str:
    return f"figures/launched-{scenario}-trade.svg"


def _means(rows: list[dict[str, Any]], keep: float, key: str) -> list[tuple[float, float]]:
    pulls = sorted({row["pull"] for row in rows})
    found = []
    for pull in pulls:
        own = [row[key] for row in rows if (row["pull"], row["keep"]) == (pull, keep)]
        found.append((pull, float(np.mean(own))))
    return found


def _scenario(scenario: str, rows: list[dict[str, Any]], record: dict[str, Any]) -> list[str]:
    seeds: dict[str, set[int]] = {}
    for row in rows:
        seeds.setdefault(row["method"], set()).add(row["seed"])
    every, shared = set.union(*seeds.values()), set.intersection(*seeds.values())
    cases = {case["scenario"]: case for case in record.get("cases", [])}
    case = cases.get(scenario, {})
    lines = [f"## `{scenario}`", "", *_settings(case, rows[0]["n"])]
    upstream = case.get("options", {}).get("upstream")
    if shared:
        lines += _tables([row for row in rows if row["seed"] in shared], upstream)
    if shared != every:
        # Means are compared on the same clients: who lacks a seed has no place among these.
        lines += ["### Methods that have more seeds", ""] if shared else []
        whole = [row for row in rows if seeds[row["method"]] == every]
        lines += _tables(whole, upstream) if whole else ["No method has all seeds yet.", ""]
    refused = [each["method"] for each in record["refused"] if each["scenario"] == scenario]
    for method in dict.fromkeys(refused):  # by seed
        lines += [f"`{method}` is not for this base model.", ""]
    trade = [row for row in record["trade"] if row["scenario"] == scenario]
    if trade:
        lines += _trade(scenario, trade)
    return lines


def _settings(case: dict[str, Any], n: int) -> list[str]:
    """Say what differs from the defaults, as one would set it: a paragraph."""
    if not case:
        return []
    options = {f"scenario.options.{key}": each for key, each in case["options"].items()}
    nets = {f"averaging.options.{key}": each for key, each in case["nets"].items()}
    sizes = {"certificate.support_size": n, "evaluation.baselines": "false"}
    common = ", ".join(
        f"`{key}={each}`" for key, each in (options | sizes | case["settings"]).items()
    )
    said = ", ".join(f"`{key}={each}`" for key, each in nets.items())
    return [
        f"Settings that are not the defaults: {common}; seeds also in `scenario.options.seed`. "
        f"Methods with a net: {said}.",
        "",
    ]


def _tables(rows: list[dict[str, Any]], upstream: int | None) -> list[str]:
    """Compare methods on the seeds that all of these rows' methods have."""
    methods: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["method"]):
        methods.setdefault(row["method"], []).append(row)
    by_certificate = sorted(methods.values(), key=lambda own: _mean(own)["certificate"])
    seeds = sorted({row["seed"] for row in rows})
    return [
        f"Seeds {', '.join(map(str, seeds))}, with {rows[0]['clients']} new clients each.",
        "",
        *_by_n(by_certificate),
        f"At n = {rows[0]['n']}:",
        "",
        "| method | error | worst tenth | elsewhere | below chance | lowest | sent | received "
        "| seconds |",
        "|---|---|---|---|---|---|---|---|---|",
        *[_line(_mean(own)) for own in by_certificate],
        "",
        *costs(by_certificate, upstream),
    ]


def _by_n(methods: list[list[dict[str, Any]]]) -> list[str]:
    """Say what each method certifies with how many labels, and how many a target takes."""
    sizes = [each["n"] for each in methods[0][0]["by_n"]]
    targets = [f"{target:.0%}" for target in TARGETS]
    lines = [
        f"| method | {' | '.join([f'n = {n}' for n in sizes] + targets)} |",
        f"|---{'|---' * (len(sizes) + len(targets))}|",
    ]
    lines += [_curve(own) for own in methods]
    every = _by_size([row for own in methods for row in own], "limit")
    limits = [decimal_up(float(np.mean(values))) for values in every.values()]
    name = f"*limit of n = {max(every)}'s adapters*"
    return [*lines, f"| {name} | {' | '.join([*limits, *['-'] * len(targets)])} |", ""]


def _curve(own: list[dict[str, Any]]) -> str:
    """Return a method's row: means by n, and how many labels each target takes."""
    spread = standard_error(np.concatenate([row["bounds"] for row in own]))
    by_n = {
        n: (float(np.mean(values)), standard_error(values) if len(values) > 1 else spread)
        for n, values in _by_size(own, "certificate").items()
    }
    spread = max(spread, by_n[max(by_n)][1])
    cells = [decimal_up(mean) for mean, _ in by_n.values()]
    cells[-1] += f" ± {spread:.3f}"
    needed = [labels_needed_about(by_n, target) for target in TARGETS]
    return f"| {own[0]['method']} | {' | '.join(cells + needed)} |"


def _by_size(rows: list[dict[str, Any]], key: str) -> dict[int, list[float]]:
    """Return the rows' values by n, from the smallest on."""
    found: dict[int, list[float]] = {}
    for row in rows:
        for each in row["by_n"]:
            found.setdefault(each["n"], []).append(each[key])
    return dict(sorted(found.items()))


def _trade(scenario: str, rows: list[dict[str, Any]]) -> list[str]:
    """Say what pull and keep trade, from the adapter of FedAvg."""
    keeps, seeds = sorted({row["keep"] for row in rows}), len({row["seed"] for row in rows})
    lines = [
        f"### Personal against general on `{scenario}`",
        "",
        f"![own error and error elsewhere by pull and keep]({_figure(scenario)})",
        "",
        f"n = {rows[0]['n']}, means over {plural(seeds, 'seed')}: certificate / own error / "
        "error elsewhere, fine-tuned from what FedAvg published. *pull* is the weight of half "
        "the squared distance from that in the loss, *keep* its share in what is exported "
        "([methods.md](methods.md#settings)).",
        "",
        f"| pull | {' | '.join(f'keep {keep:g}' for keep in keeps)} |",
        f"|---{'|---' * len(keeps)}|",
    ]
    by_key = {
        keep: [dict(_means(rows, keep, key)) for key in ("certificate", "error", "elsewhere")]
        for keep in keeps
    }
    for pull in sorted({row["pull"] for row in rows}):
        cells = [
            f"{decimal_up(bound[pull])} / {error[pull]:.3f} / {elsewhere[pull]:.3f}"
            for bound, error, elsewhere in (by_key[keep] for keep in keeps)
        ]
        lines.append(f"| {pull:g} | {' | '.join(cells)} |")
    return [*lines, ""]


def _mean(rows: list[dict[str, Any]]) -> dict[str, Any]:
    known = [row["elsewhere"] for row in rows if row["elsewhere"] is not None]
    return {
        "method": rows[0]["method"],
        "elsewhere": float(np.mean(known)) if known else None,
        "lowest": _lowest(np.concatenate([row["bounds"] for row in rows])),
        "client_seconds": float(np.median([row["client_seconds"] for row in rows])),
        **{key: float(np.mean([row[key] for row in rows])) for key in _KEYS},
    }


def _lowest(bounds: np.ndarray) -> str:
    """Say what the lowest bound of a client is, and how many have it."""
    least = float(bounds.min())
    return f"{decimal_up(least)} ({np.isclose(bounds, least).sum()} of {len(bounds)})"


def _line(row: dict[str, Any]) -> str:
    elsewhere = "-" if row["elsewhere"] is None else f"{row['elsewhere']:.3f}"
    return (
        f"| {row['method']} | {row['error']:.3f} | {row['worst_decile_error']:.3f} "
        f"| {elsewhere} | {row['nonvacuous']:.0%} | {row['lowest']} "
        f"| {row['up_bytes'] / 1024:.1f} | {row['down_bytes'] / 1024:.1f} "
        f"| {row['client_seconds']:.2f} |"
    )
