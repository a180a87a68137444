"""Renders docs/private-default.md from what ``make bench-privacy`` measured."""

from __future__ import annotations

from typing import Any

from fedcert.simulations.benchmarks.pages import machine_line

__all__ = ["privacy_page"]


def privacy_page(record: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    training, clip = record["training"], record["table"][0]["clip"]
    parts = [
        "<!-- Rendered by `make bench-privacy`; do not edit. -->",
        "# What a private default adapter certifies",
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
        f"{machine_line(record)} Seed {record['seed']}.",
        "",
    ]
    table = record["table"]
    sizes = sorted({row["n"] for row in table})
    for clients in dict.fromkeys(row["clients"] for row in table):
        rows = [row for row in table if row["clients"] == clients]
        parts += [f"## {clients} upstream clients", "", *_lines(rows, sizes), ""]
        parts += [f"{_cost(rows, n)}\n" for n in sizes]
    return "\n".join(parts).rstrip() + "\n"


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
    """Say which share of what the plain mean gains over the base model each promise keeps."""
    there = {_key(row): row["certificate"] for row in rows if row["n"] == n}
    frozen, plain = there["none: the base model", None], there["plain", None]
    gain = frozen - plain
    if gain < 0.005:
        return (
            f"At n = {n} the plain mean gains {gain:+.3f} on the base model: next to nothing, "
            "so there is nothing for noise to lose."
        )
    kept = ", ".join(
        f"{(frozen - bound) / gain:.0%} at epsilon {epsilon:g}"
        for (_, epsilon), bound in there.items()
        if epsilon is not None
    )
    return (
        f"At n = {n} the plain mean gains {gain:.3f} on the base model; of that, noise keeps "
        f"{kept}."
    )


def _key(row: dict[str, Any]) -> tuple[str, float | None]:
    return row["mean"], row.get("epsilon")
