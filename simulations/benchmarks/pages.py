"""What the pages that benchmarks render have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "TARGETS",
    "by_scenario",
    "labels_between",
    "labels_needed",
    "labels_needed_about",
    "left_out",
    "machine_line",
    "standard_error",
]

TARGETS = (0.2, 0.1)
"""Mean certificates whose labels pages count."""


def labels_needed(certificates: Mapping[int, float], target: float) -> int | None:
    """Return the first n whose mean certificate is at most the target; None without one."""
    return min((n for n, mean in certificates.items() if mean <= target), default=None)


def labels_between(
    certificates: Mapping[int, tuple[float, float]], target: float
) -> tuple[int | None, int | None]:
    """Return between which n a target is reached, by how far means may be off.

    Parameters
    ----------
    certificates : Mapping[int, tuple[float, float]]
        By n, the mean certificate, and how much lower or higher it may be.
    target : float
        The mean certificate that is asked for.

    Returns
    -------
    tuple of int or None
        The first n if all means are as low, and if all are as high, as they may be.
    """
    least = {n: mean - off for n, (mean, off) in certificates.items()}
    most = {n: mean + off for n, (mean, off) in certificates.items()}
    return labels_needed(least, target), labels_needed(most, target)


def labels_needed_about(
    certificates: Mapping[int, tuple[float, float | None]], target: float
) -> str:
    """Say how many labels a target takes, as a range where the standard error leaves it open.

    Parameters
    ----------
    certificates : Mapping[int, tuple[float, float | None]]
        By n, the mean certificate and its standard error; None where that is not known.
    target : float
        The mean certificate that is asked for.

    Returns
    -------
    str
        The first n whose mean is at most the target; from one n to another where means are
        within two standard errors of it.

    Examples
    --------
    >>> labels_needed_about({32: (0.36, 0.02), 64: (0.21, 0.01), 128: (0.13, 0.01)}, 0.2)
    '64 to 128'
    """
    first, last = labels_between(
        {n: (mean, 2 * (error or 0.0)) for n, (mean, error) in certificates.items()}, target
    )
    largest = f"> {max(certificates)}"
    if first is None:
        return largest
    if last is None:
        return f"{first} to {largest}"
    return str(first) if first == last else f"{first} to {last}"


def standard_error(values: Sequence[float] | npt.NDArray[np.float64]) -> float:
    """Return the standard error of the mean of two values or more."""
    return float(np.std(values, ddof=1) / len(values) ** 0.5)


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
