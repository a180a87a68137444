"""The page that `make bench-scale` renders."""

from __future__ import annotations

from typing import Any

from fedcert.simulations.benchmarks.pages import machine_line

__all__ = ["scale_page"]


def scale_page(record: dict[str, Any]) -> str:
    """Render docs/scale.md from the benchmark's record."""
    parts = [
        "<!-- Rendered by `make bench-scale`; do not edit. -->",
        "# Larger base models",
        "What a search takes by the size of the base model: MiniLM as it is published, and a "
        "ViT-B/16 and a Llama-like decoder of random weights, in sharded safetensors. "
        + machine_line(record),
        "## Speed",
        _speed(record),
    ]
    if _on_processor(record):  # a GPU's memory is its own
        parts += ["## Memory", _memory(record["table"]), _sharing(record["sharing"])]
    return "\n\n".join(parts) + "\n"


def _on_processor(record: dict[str, Any]) -> bool:
    return all(row["device"] == "cpu" for row in record["table"])


def _speed(record: dict[str, Any]) -> str:
    rows = [
        f"| {row['model']} | {row['parameters'] / 1e6:.0f} M | {row['precision']} "
        f"| {row['layers']} | {row['examples']} | {row['frozen_seconds']:.2f} "
        f"| {1e3 * row['candidate_seconds']:.1f} "
        f"| {row['tokens'] / row['candidate_seconds']:,.0f} | {row['speedup_vs_peft']:,.0f} "
        f"| {_range(row['speedup_range'])} | {row['largest_loss_difference']:.0e} |"
        for row in record["table"]
    ]
    clock = (
        "seconds are those that one thread computed"
        if _on_processor(record)
        else "seconds are those of the clock"
    )
    return "\n".join(
        [
            f"Medians of {record['repeats']} turns, {clock}. *Frozen layers* run once for all "
            "candidates; a candidate's time and the ratio come without them. *x PEFT loop* is "
            "a candidate's time in the plain loop, which runs the whole model, over that, "
            "taken in the same turn; its range over the turns says how far to trust it. The "
            "last column is the largest difference of a loss between the two. MiniLM reads the "
            "mean of all tokens, so that its last layer runs at all of them; the others read "
            "one token. int8 is made of float32 when a model is loaded.",
            "",
            "| model | parameters | precision | adapted layers | n | frozen layers, s "
            "| a candidate, ms | tokens x candidates per s | x PEFT loop | range "
            "| loss differs by |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
            *rows,
        ]
    )


def _range(ends: list[float]) -> str:
    low, high = ends
    return f"{low:,.0f} to {high:,.0f}"


def _memory(table: list[dict[str, Any]]) -> str:
    rows = [
        f"| {row['model']} | {row['precision']} | {row['layers']} | {row['libraries_mib']:.0f} "
        f"| {row['mapped_mib']:.0f} | {row['own_peak_mib']:.0f} | {row['own_formula_mib']:.0f} "
        f"| {row['peak_mib']:.0f} | {_whole(row):.0f} |"
        for row in table
    ]
    return "\n".join(
        [
            "The same searches in MiB, on the processor: Python and its libraries, the files "
            "of weights, which are mapped, what the process took for itself at its peak, what "
            "[devices.md](devices.md#where-it-computes) says that this may be, the peak of "
            "the whole process (`VmHWM`), and the sum of libraries, files, and formula.",
            "",
            "| model | precision | adapted layers | libraries | mapped | own, measured "
            "| own, formula | whole, measured | whole, formula |",
            "|---|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            f"The largest ratio of what a process took for itself to the formula is "
            f"{max(row['own_peak_mib'] / row['own_formula_mib'] for row in table):.2f}.",
        ]
    )


def _whole(row: dict[str, Any]) -> float:
    return float(row["libraries_mib"] + row["mapped_mib"] + row["own_formula_mib"])


def _sharing(found: dict[str, Any]) -> str:
    rows = [
        f"| {words} | {found[key]['rss_mib']:.0f} | {found[key]['pss_mib']:.0f} "
        f"| {found[key]['own_mib']:.0f} |"
        for key, words in (("alone", "one process"), ("together", "each of two processes"))
    ]
    return "\n".join(
        [
            "Two processes that load the decoder in float32 and score candidates hold its "
            "weights once. MiB; *proportional* divides each page by the processes that share "
            "it (`Pss`), and what a process shares with none is its own, so that the weights "
            "are a lone process's.",
            "",
            "| | in memory | proportional | its own |",
            "|---|---|---|---|",
            *rows,
        ]
    )
