"""What the pages that benchmarks render have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["TARGETS", "by_scenario", "labels_needed", "left_out", "machine_line"]

TARGETS = (0.2, 0.1)
"""Mean certificates whose labels pages count."""


def labels_needed(certificates: Mapping[int, float], target: float) -> int | None:
    """Return the first n whose mean certificate is at most the target; None without one."""
    return min((n for n, mean in certificates.items() if mean <= target), default=None)


def machine_line(record: dict[str, Any]) -> str:
    """Say on what a benchmark ran."""
    machine = record["machine"]
    return f"Machine: {machine['cores']} cores ({machine['cpu']})."


def left_out(record: dict[str, Any]) -> list[str]:
    """Say which scenarios were not measured, and why: a paragraph each."""
    lines: list[str] = []
    for scenario, reason in record["missing"].items():
        lines += [f"Left out here: `{scenario}` ({reason}).", ""]
    return lines


def by_scenario(record: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield each scenario of a benchmark's table with its rows, in order."""
    table = record["table"]
    for scenario in dict.fromkeys(row["scenario"] for row in table):
        yield scenario, [row for row in table if row["scenario"] == scenario]
