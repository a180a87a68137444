"""Renders docs/named.md from what ``make bench-named`` measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fedcert.reports.formats import decimal_up
from fedcert.simulations.benchmarks.choosing_figures import mean_of
from fedcert.simulations.benchmarks.pages import left_out, machine_line, standard_error

__all__ = ["Row", "head_start", "means_of", "named_page"]

_PLANNED, _REGRESSION = "planned", "embeddings + logistic regression"
_FROM_NAMES = "head from names"
_FROM_DEFAULT = "head from names of the default"
# Mean certificates that were asked for beforehand, by scenario, setting and n.
_GOALS = {
    ("named-intents", "mixed"): {16: 0.23, 32: 0.145, 80: 0.085},
    ("named-intents", "domain"): {16: 0.36, 32: 0.27, 80: 0.18, 128: 0.14},
    ("intents", ""): {64: 0.33, 256: 0.19},
}
# What needs no federation.
_BASELINES = (
    "zero-shot",
    _REGRESSION,
    *(f"head from names {share}" for share in (0.25, 0.375, 0.5)),
)
_MEANS = ("certificate", "error", "nonvacuous", "limit", "client_seconds", "planned",
          "above_planned", "above_default")  # fmt: skip

Row = dict[str, Any]


def named_page(record: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    parts = [*_intro(record), *left_out(record), *_waiting(record)]
    for scenario, setting in _settings(record):
        rows = [r for r in record["table"] if (r["scenario"], r["setting"]) ==
                (scenario, setting)]  # fmt: skip
        means = means_of(rows)
        title = f"`{scenario}`, {setting}" if setting else f"`{scenario}`"
        seeds = sorted({row["seed"] for row in rows})
        parts += [f"## {title}, {rows[0]['ways']} ways", ""]
        parts += [_numbers(record, scenario, setting, seeds), ""]
        parts += [_planned_recipes(record, rows), ""]
        parts += [*_table(means), "", *_goals(means, scenario, setting), ""]
        parts += [*_worth_of_the_prior(means, rows), ""]
    parts += _steel(record)
    return "\n".join(parts).rstrip() + "\n"


def _intro(record: dict[str, Any]) -> list[str]:
    return [
        "<!-- Rendered by `make bench-named`; do not edit. -->",
        "# Labels of a client's own, with names",
        "",
        "New clients bring their own labels, none of which anybody upstream had. Logits are "
        "scaled cosines between the embeddings of text and label name, on MiniLM "
        "([architecture.md](architecture.md)); `intents` has a trained head on the same mean "
        "pooling. *Planned* is the recipe that upstream clients which train nothing found for "
        "n; *default* is the prior's center. A *head from names* has a vector for each label "
        "that starts at the name's embedding and is pulled to it while it learns on a share of "
        "the examples; the others certify it. Settings (the names' template, how upstream "
        "clients train) were chosen on upstream clients of a seed that is not measured. **How "
        "that head learns was chosen among some 35 variants on new clients of such a seed, "
        "whose intents and texts are partly those of the measured ones, and one earlier "
        "variant had been seen on the measured seeds**: other data have to confirm what it "
        "gains. Planning clients share intents with those that train, which new clients do "
        "not, so that plans promise somewhat much. The base model is as it was published; "
        "[warm-start.md](warm-start.md) shows what federated rounds on it add.",
        "",
        "* *certificate*: mean bound over clients and seeds, rounded up, ± the larger of its "
        "standard errors over clients and over seeds; *below chance*: share of clients whose "
        "bound beats 1 - 1/K of their own K labels.",
        "* *planned, randomized bound*: the same recipe with `certificate.randomized = true`, "
        "which is off by default ([theory.md](theory.md)).",
        "* *error*: on the client's texts that nothing else used.",
        "* *limit*: what the certificate would be if the best of the default, a logistic "
        "regression and a head, learned from all n labels, came for free. Posterior means are "
        "not among them, so that a plan which chooses these can come below it.",
        "* *against the plan*: mean difference to the planned certificate on the same clients, "
        "± the same of it; above 0 the plan is better.",
        "* *false*: certificates below the true error, of how many; each may be one with "
        f"probability {record['delta']:g}.",
        "* *seconds*: processor time of a new client with one thread, its texts' way through "
        "the frozen layers left out.",
        "",
        machine_line(record),
        "",
    ]


def _waiting(record: dict[str, Any]) -> list[str]:
    """Name the seeds that are not finished, a paragraph for all of them."""
    found = []
    for cell in record["cells"]:
        key = (cell["scenario"], cell["setting"])
        done = {r["seed"] for r in record["table"] if (r["scenario"], r["setting"]) == key}
        left = [str(seed) for seed in record["seeds"] if seed not in done]
        if left and ", ".join(filter(None, key)) not in record["missing"]:
            name = f"`{key[0]}`, {key[1]}" if key[1] else f"`{key[0]}`"
            found.append(f"{name} (seeds {', '.join(left)})")
    return [f"Not measured yet: {'; '.join(found)}.", ""] if found else []


def _numbers(record: dict[str, Any], scenario: str, setting: str, seeds: Sequence[int]) -> str:
    """Say how much of a scenario was measured."""

    def of(entries: list[dict[str, Any]]) -> dict[str, Any]:
        return next(e for e in entries if (e["scenario"], e["setting"]) == (scenario, setting))

    cell, training = of(record["cells"]), of(record["training"])
    return (
        f"Seeds {', '.join(map(str, seeds))}; of each, {cell['new']} new clients, a prior "
        f"fitted to {cell['fitted']} upstream adapters ({training['steps']} steps on "
        f"{training['batch_size']} texts each), and {cell['planners']} other upstream clients "
        f"that plan. M = {cell['candidates']}, delta = {record['delta']:g}. Methods that take "
        f"long ran on the first {cell['some']} new clients of each seed. The planner's menu is "
        f"without {_listed(cell['left_out'])}, for the time that each planning client would "
        "take."
    )


def _listed(names: Sequence[str]) -> str:
    said = {"finetune": "fine-tuning", "posterior_mean": "posterior means"}
    return " and ".join(said[name] for name in sorted(names))


def _settings(record: dict[str, Any]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["scenario"], row["setting"]) for row in record["table"]))


def means_of(rows: Sequence[Row]) -> dict[tuple[str, int], Row]:
    """Average over seeds, weighted by clients."""
    found: dict[tuple[str, int], Row] = {}
    for method, n in dict.fromkeys((row["method"], row["n"]) for row in rows):
        group = [row for row in rows if (row["method"], row["n"]) == (method, n)]
        weights = np.array([row["clients"] for row in group], dtype=float)
        mean = {
            key: float(np.average([row[key] for row in group], weights=weights))
            for key in _MEANS
        }
        found[method, n] = {
            **mean,
            "method": method,
            "n": n,
            "clients": int(weights.sum()),
            "violations": sum(row["violations"] for row in group),
            "se": _larger_se(group, "certificate", "se"),
            "above_planned_se": _larger_se(group, "above_planned", "above_planned_se"),
        }
    return found


def _larger_se(group: Sequence[Row], key: str, se: str) -> float:
    """Return the larger standard error of a mean, over clients and over seeds.

    Clients of a seed share a prior and a plan, so that those over clients may be too small.
    """
    return mean_of([(row[key], row[se] or 0.0, row["clients"]) for row in group]).se or 0.0


def _table(means: dict[tuple[str, int], Row]) -> Iterator[str]:
    yield (
        "| n | method | certificate | below chance | error | limit | against the plan | false "
        "| clients | seconds |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for n in sorted({n for _, n in means}):
        rows = sorted(
            (row for (_, size), row in means.items() if size == n),
            key=lambda row: (row["method"] != _PLANNED, row["above_planned"]),
        )
        for row in rows:
            name = f"**{row['method']}**" if row["method"] == _PLANNED else row["method"]
            against = (
                "" if row["method"] == _PLANNED
                else f"{row['above_planned']:+.3f} ± {row['above_planned_se']:.3f}"
            )  # fmt: skip
            yield (
                f"| {n} | {name} | {decimal_up(row['certificate'])} ± {row['se']:.3f} "
                f"| {row['nonvacuous']:.0%} | {row['error']:.3f} "
                f"| {decimal_up(row['limit'])} "
                f"| {against} | {row['violations']} of {row['clients']} | {row['clients']} "
                f"| {row['client_seconds']:.2f} |"
            )


def _planned_recipes(record: dict[str, Any], rows: Sequence[Row]) -> str:
    key = (rows[0]["scenario"], rows[0]["setting"])
    plans = [p for p in record["plans"] if (p["scenario"], p["setting"]) == key]
    chosen = []
    for n in sorted({plan["n"] for plan in plans}):
        names = list(dict.fromkeys(plan["recipe"] for plan in plans if plan["n"] == n))
        chosen.append(f"n = {n}: {', '.join(f'`{name}`' for name in names)}")
    return f"Planned over the seeds: {'; '.join(chosen)}."


def _goals(means: dict[tuple[str, int], Row], scenario: str, setting: str) -> Iterator[str]:
    """Say of each goal whether it is met."""
    for n, goal in _GOALS.get((scenario, setting), {}).items():
        if (_PLANNED, n) in means:
            bound = means[_PLANNED, n]["certificate"]
            yield f"* Goal at n = {n}, a planned certificate of at most {goal:g}: " + _verdict(
                bound <= goal, decimal_up(bound)
            )
    sizes = sorted({n for _, n in means})
    if all((_PLANNED, n) in means for n in sizes):
        shares = [means[_PLANNED, n]["nonvacuous"] for n in sizes]
        yield "* Goal, below chance for every client at every n: " + _verdict(
            min(shares) == 1.0, ", ".join(f"{share:.0%}" for share in shares)
        )
    yield from _never_behind(means, sizes)
    if setting == "domain" and (_REGRESSION, 32) in means:
        learner = _learner(means, 32)
        error, other = learner["error"], means[_REGRESSION, 32]["error"]
        yield (
            "* Goal at n = 32, an error of the best learner of at most a third of logistic "
            "regression's: "
            + _verdict(error <= other / 3, f"{error:.3f} ({learner['method']}) and {other:.3f}")
        )


def _never_behind(means: dict[tuple[str, int], Row], sizes: Sequence[int]) -> Iterator[str]:
    behind: list[str] = []
    within: list[str] = []
    for n in sizes:
        for method in _BASELINES:
            row = means.get((method, n))
            if row and (by := -row["above_planned"]) > 0:
                error = row["above_planned_se"]
                said = f"n = {n}: {method} by {by:.3f} ± {error:.3f}"
                (behind if by > error else within).append(said)
    figures = "; ".join(behind) if behind else "at none"
    if within:
        figures += f"; by no more than that behind at {'; '.join(within)}"
    baselines = ", ".join(
        name for name in _BASELINES if any(name == method for method, _ in means)
    )
    yield (
        "* Goal, at no n behind the best of what needs no federation "
        f"({baselines}) by more than the standard error: {_verdict(not behind, figures)}"
    )


def _learner(means: dict[tuple[str, int], Row], n: int) -> Row:
    """Return the row of lowest error among those that learn from a part of the examples."""
    learners = [
        row for (method, size), row in means.items()
        if size == n and (method.startswith("head from") or method.startswith("fine-tuned"))
    ]  # fmt: skip
    return min(learners or [means["default", n]], key=lambda row: float(row["error"]))


def head_start(rows: Sequence[Row], n: int) -> dict[str, tuple[float, float]]:
    """Return what a head gains by starting at the default adapter, not at the names alone.

    Parameters
    ----------
    rows : sequence of dict
        Of one scenario and setting.
    n : int
        Labels of a client.

    Returns
    -------
    dict
        By the share of the examples that both learn from, the difference of mean certificates
        and its standard error over seeds; only shares that both have on all seeds, and two
        seeds or more.
    """
    found: dict[str, dict[int, dict[str, Row]]] = {}
    for row in rows:
        kind, _, share = row["method"].rpartition(" ")
        if row["n"] == n and kind in {_FROM_DEFAULT, _FROM_NAMES}:
            found.setdefault(share, {}).setdefault(row["seed"], {})[kind] = row
    gains = {}
    for share, by_seed in sorted(found.items()):
        pairs = [each for each in by_seed.values() if len(each) == 2]
        same = [e for e in pairs if len({row["clients"] for row in e.values()}) == 1]
        if len(same) == len(by_seed) > 1:
            apart = [
                each[_FROM_DEFAULT]["certificate"] - each[_FROM_NAMES]["certificate"]
                for each in same
            ]
            gains[share] = float(np.mean(apart)), standard_error(apart)
    return gains


def _worth_of_the_prior(
    means: dict[tuple[str, int], Row], rows: Sequence[Row]
) -> Iterator[str]:
    """Say what the federation adds to names, and a search of the prior to its center."""
    yield (
        "What the prior adds, as differences of mean certificates on the same clients (below 0 "
        "it helps); *heads*: one that starts at the default against one that starts at the "
        "names, where both learn from the same share, ± the standard error over seeds:"
    )
    yield ""
    for n in sorted({n for _, n in means}):
        default = means.get(("default", n))
        if default is None:
            continue
        said = []
        for method in [name for name, size in means if size == n]:
            row = means[method, n]
            if method == "zero-shot":
                said.append(
                    "the default against names alone "
                    f"{default['certificate'] - row['certificate']:+.3f}"
                )
            elif method.startswith("union") or method == "posterior mean":
                said.append(f"{method} against the default {row['above_default']:+.3f}")
        said += [
            f"heads at {share} {gain:+.3f} ± {error:.3f}"
            for share, (gain, error) in head_start(rows, n).items()
        ]
        if said:
            yield f"* n = {n}: {'; '.join(said)}."


def _verdict(met: bool, figures: str) -> str:
    return f"{'met' if met else '**missed**'} ({figures})."


def _steel(record: dict[str, Any]) -> list[str]:
    rows = record["steel"]
    if not rows:
        return []
    parts = [
        "## STEEL in its own setting",
        "",
        f"5 ways, {record['shots']} shots of each, so n = {rows[0]['n']}; the prior is the "
        "pool's, and Hoeffding's inequality bounds the best of M on the same examples. SGD "
        "trains on all of them, and its training-set bound pays for every adapter that three "
        "bits for each coordinate can name. A balanced draw is no i.i.d. sample, so these are "
        "what the formulas give, and not certificates.",
        "",
        "| method | bound below chance | mean bound | error | accuracy behind SGD | clients |",
        "|---|---|---|---|---|---|",
    ]
    for method in dict.fromkeys(row["method"] for row in rows):
        group = [row for row in rows if row["method"] == method]
        weights = [row["clients"] for row in group]
        mean = {
            key: float(np.average([row[key] for row in group], weights=weights))
            for key in ("nonvacuous", "certificate", "error", "accuracy_gap")
        }
        parts.append(
            f"| {method} | {mean['nonvacuous']:.0%} | {decimal_up(mean['certificate'])} "
            f"| {mean['error']:.3f} | {mean['accuracy_gap']:+.3f} | {sum(weights)} |"
        )
    return parts
