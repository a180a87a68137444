"""Renders docs/private-default.md from what ``make bench-privacy`` measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedcert.simulations.benchmarks.pages import machine_line, standard_error

__all__ = ["privacy_page"]

# Gains in certificates of which nothing can be lost, and of which no share is said.
_NOTHING, _LITTLE = 0.005, 0.02


def privacy_page(record: dict[str, Any]) -> str:
    """Return the page as Markdown, with the parts that the record has."""
    parts = [
        "<!-- Rendered by `make bench-privacy`; do not edit. -->",
        "# What central differential privacy costs",
        "",
        machine_line(record),
        "",
    ]
    if "table" in record:
        parts += _default(record)
    if trunk := record.get("trunk"):
        parts += _trunk(trunk)
    return "\n".join(parts).rstrip() + "\n"


def _default(record: dict[str, Any]) -> list[str]:
    """Return the section about the default adapter."""
    training, clip = record["training"], record["table"][0]["clip"]
    parts = [
        "## The default adapter",
        "",
        "The mean of the upstream clients' adapters, published with noise of the server's "
        "([privacy.md](privacy.md#a-default-adapter-with-central-differential-privacy)). "
        "Clients of `named-intents` tell 5 intents of their own apart, new ones those of a "
        "domain that no upstream client has. Each upstream client trains an adapter of "
        f"{record['dimension']} numbers on "
        f"{training['examples']} texts, in {training['steps']} steps of "
        f"{training['batch_size']}. For {record['new']} new clients all n examples certify the "
        f"default adapter; delta is {record['delta']:g}. A row with noise is the mean of "
        f"{record['draws']} draws of it.",
        "",
        f"The clipping norm is {clip:g}, the median norm of {record['clip_clients']} adapters "
        f"of another federation; {record['longer_than_clip']:.0%} of the adapters here are "
        "longer, and are shortened. epsilon is of one published mean, for replacing one "
        "client's adapter.",
        "",
        f"Seed {record['seed']}.",
        "",
    ]
    table = record["table"]
    sizes = sorted({row["n"] for row in table})
    for clients in dict.fromkeys(row["clients"] for row in table):
        rows = [row for row in table if row["clients"] == clients]
        parts += [f"### {clients} upstream clients", "", *_lines(rows, sizes), ""]
        parts += [f"{_cost(rows, n)}\n" for n in sizes]
    return parts


def _lines(rows: list[dict[str, Any]], sizes: list[int]) -> list[str]:
    heads = " | ".join(f"certificate at n = {n}" for n in sizes)
    lines = [
        f"| default adapter | epsilon | noise per coordinate | {heads} | error |",
        "|---|---|---|" + "---|" * len(sizes) + "---|",
    ]
    for key in dict.fromkeys(_key(row) for row in rows):
        same = [row for row in rows if _key(row) == key]
        first, bounds = same[0], {row["n"]: row["certificate"] for row in same}
        epsilon = f"{first['epsilon']:g}" if "epsilon" in first else "none"
        noise = f"{first['noise_deviation']:.3f}" if "noise_deviation" in first else "none"
        shown = " | ".join(f"{bounds[n]:.3f}" for n in sizes)
        lines.append(
            f"| {first['mean']} | {epsilon} | {noise} | {shown} | {first['error']:.3f} |"
        )
    return lines


def _cost(rows: list[dict[str, Any]], n: int) -> str:
    """Say which share of what the plain mean gains over the base model each promise keeps.

    Of a small gain, whose standard error the record does not have, a share says nothing.
    """
    there = {_key(row): row["certificate"] for row in rows if row["n"] == n}
    frozen, plain = there["none: the base model", None], there["plain", None]
    noised = {epsilon: bound for (_, epsilon), bound in there.items() if epsilon is not None}
    gain = frozen - plain
    if gain < _NOTHING:
        return (
            f"At n = {n} the plain mean gains {gain:+.3f} on the base model: next to nothing, "
            "so there is nothing for noise to lose."
        )
    if gain < _LITTLE:
        apart = ", ".join(f"{b - plain:+.3f} at epsilon {e:g}" for e, b in noised.items())
        return (
            f"At n = {n} the plain mean gains {gain:.3f} on the base model, too little to take "
            "shares of it. Certificates with noise differ from the plain mean's by "
            f"{apart} (below 0 they are lower)."
        )
    kept = ", ".join(f"{(frozen - b) / gain:.0%} at epsilon {e:g}" for e, b in noised.items())
    return (
        f"At n = {n} the plain mean gains {gain:.3f} on the base model; of that, noise keeps "
        f"{kept}."
    )


def _key(row: dict[str, Any]) -> tuple[str, float | None]:
    return row["mean"], row.get("epsilon")


def _trunk(trunk: dict[str, Any]) -> list[str]:
    """Return the section about base models that were warmed up."""
    n, rows = trunk["n"], trunk["table"]
    seeds = ", ".join(map(str, trunk["seeds"]))
    certificates = {key: _certificates(rows, key) for key in dict.fromkeys(map(_base, rows))}
    lines = [
        "## A base model that was warmed up",
        "",
        f"`{trunk['scenario']}` of [warm-start.md](warm-start.md), with the same rounds: "
        f"{trunk['clients']} clients send how far they moved the trunk, and the server adds "
        "noise to the mean of the moves "
        "([privacy.md](privacy.md#a-private-warm-start)). Each of "
        f"{trunk['new']} new clients trains a head on half of its {n} examples, and the others "
        "certify it: neither prior nor plan is in this. epsilon is of all rounds together, for "
        f"replacing one client's examples; delta_p is {_delta_p(rows)}. *Gain*: how much lower "
        "the certificate is than on the base model as it was, in pairs, ± its standard error "
        f"over clients. Seeds: {seeds}.",
        "",
        "| base model | epsilon | noise per number of a mean move "
        f"| certificate at n = {n} | gain | error |",
        "|---|---|---|---|---|---|",
    ]
    before = certificates["as it was", None]
    order = sorted(certificates, key=lambda key: (key[0] == "with noise", -(key[1] or 0)))
    for key in order:
        mine = [row for row in rows if _base(row) == key]
        errors = float(np.mean([error for row in mine for error in row["errors"]]))
        gains = before - certificates[key]
        noise = f"{mine[0]['noise_deviation']:.4f}" if key[1] else "none"
        epsilon = f"{key[1]:g}" if key[1] else "none"
        gain = (
            f"{gains.mean():+.3f} ± {standard_error(gains):.3f}"
            if mine[0]["base"] != "as it was"
            else "-"
        )
        lines.append(
            f"| {key[0]} | {epsilon} | {noise} | {certificates[key].mean():.3f} | {gain} "
            f"| {errors:.3f} |"
        )
    return [*lines, ""]


def _base(row: dict[str, Any]) -> tuple[str, float | None]:
    return row["base"], row.get("epsilon")


def _certificates(rows: list[dict[str, Any]], key: tuple[str, float | None]) -> Any:
    """Return certificates of all new clients, in the order of seeds and clients."""
    mine = [row["certificates"] for row in rows if _base(row) == key]
    return np.concatenate(mine)


def _delta_p(rows: list[dict[str, Any]]) -> str:
    return ", ".join(dict.fromkeys(f"{row['delta_p']:g}" for row in rows if "delta_p" in row))
