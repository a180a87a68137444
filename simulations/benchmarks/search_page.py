"""The page that `make bench-search` renders."""

from __future__ import annotations

from typing import Any

__all__ = ["search_page"]


def search_page(record: dict[str, Any]) -> str:
    """Render docs/searching.md from the benchmark's record."""
    parts = [
        ["<!-- Rendered by `make bench-search`; do not edit. -->", "# Search speed"],
        _scoring(record),
        _dropping(record.get("dropping", [])),
        _finetuning(record.get("new_client_vs_finetune")),
        _memory(record["memory"]),
        _left_out(record),
    ]
    return "\n\n".join("\n\n".join(part) for part in parts if part) + "\n"


def _left_out(record: dict[str, Any]) -> list[str]:
    parts = {
        "dropping": "early dropping",
        "new_client_vs_finetune": "a new client against fine-tuning",
    }
    missing = [words for name, words in parts.items() if name not in record]
    return [f"Not measured yet: {', '.join(missing)}."] if missing else []


def _scoring(record: dict[str, Any]) -> list[str]:
    machine = record["machine"]
    rows = [
        f"| {r['model']} | {r['layers']} | {r['n']} | {r['mode']} "
        f"| {r['speedup_vs_peft']:.1f} | {r['ms_per_candidate']:.2f} | {r['gemm_share']:.0%} "
        f"| {r['largest_loss_difference']:.0e} | {r['labels_changed']:.1%} |"
        for r in record["table"]
    ]
    return [
        f"Measured on {machine['cores']} cores ({machine['cpu']}), {record['threads']} "
        f"threads. Ratios are medians of {record['repeats']}, measured side by side against "
        "the plain loop that swaps adapters into one PEFT model. *GEMM share* is the executed "
        "floating-point work per second over that of a square float32 product of size 2048. "
        "The last two columns compare with the PEFT loop: the largest difference of a loss, "
        "and the share of predictions that change between right and wrong.",
        "\n".join(
            [
                "| model | adapted layers | n | mode | x PEFT loop | ms per candidate "
                "| GEMM share | loss differs by | predictions changed |",
                "|---|---|---|---|---|---|---|---|---|",
                *rows,
            ]
        ),
    ]


def _dropping(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    table = [
        f"| {r['scenario']} | {r['clients']} | {r['candidates']:,} | {r['speedup']:.1f} "
        f"| {r['scoring_speedup']:.1f} | {r['drawing_share']:.0%} | {r['same_winner']:.0%} |"
        for r in rows
    ]
    return [
        "## Early dropping",
        f"Candidates of a fitted {rows[0]['prior']} prior, n = {rows[0]['n']}, all of them "
        "choosing examples; medians over new clients of ratios to the exhaustive search. "
        "*Drawing* is the share of the exhaustive search's time that goes into drawing "
        "candidates, of which early dropping saves nothing.",
        "\n".join(
            [
                "| scenario | new clients | candidates | x exhaustive | x in scoring alone "
                "| drawing | same winner |",
                "|---|---|---|---|---|---|---|",
                *table,
            ]
        ),
    ]


def _finetuning(row: dict[str, Any] | None) -> list[str]:
    if row is None:
        return []
    ways = {
        "default": "certify the default adapter",
        "new_client": f"sample and search {row['candidates']:,} candidates, certify",
        "peft": "LoRA with stock PEFT",
        "cached": "`fedcert.adapters.finetune` (frozen layers run once)",
    }
    table = [
        f"| {words} | {row[f'{way}_seconds']:.2f} | {row[f'{way}_test_error']:.3f} |"
        for way, words in ways.items()
    ]
    return [
        "## A new client, against fine-tuning",
        f"Scenario `{row['scenario']}`, n = {row['n']}, the same modules adapted; medians over "
        f"{row['clients']} new clients, in turn. Fine-tuning takes {row['steps']} steps of "
        f"{row['batch_size']} examples: learning rate and steps are those of the lowest "
        "validation error on other clients. It ends without a certificate.",
        "\n".join(["| way | seconds | test error |", "|---|---|---|", *table]),
        f"The new client takes {row['time_vs_peft']:.2f} times as long as the PEFT loop, and "
        f"{row['time_vs_cached']:.2f} times as long as the other fine-tuning; one that "
        f"certifies the default adapter {row['default_vs_peft']:.2f} times as long as the PEFT "
        "loop. Whatever is certified, its errors are counted with the exported adapter, which "
        "takes the whole model once for each example.",
    ]


def _memory(row: dict[str, Any]) -> list[str]:
    return [
        f"A search of {row['candidates']:,} candidates ({row['model']}) added "
        f"{row['peak_mib']:.0f} MiB at its peak."
    ]
