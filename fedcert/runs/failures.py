"""Why clients failed, each cause once: the one place that groups failures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Failure",
    "FailureGroup",
    "causes_of",
    "failed_line",
    "failure_line",
    "failure_rows",
    "grouped",
    "named_clients",
]

# Figures and digests, which differ between clients that failed for one reason.
_VARYING = r"\b[0-9a-f]{8,}\b|\d+(?:[.,]\d+)*(?:e[+-]?\d+)?"
_NAMED = 3  # clients of one cause; all of them are in the event log
_ELIDED = "\N{HORIZONTAL ELLIPSIS}"


@dataclass(frozen=True)
class Failure:
    """Why a client did not do its part."""

    client: str
    phase: str
    cause: str


@dataclass(frozen=True)
class FailureGroup:
    """Clients that failed in one phase for one cause.

    Attributes
    ----------
    phase : str
        What they were asked for.
    cause : str
        In one line. What differs between the clients, such as their ids and figures, is
        left out; the cause of a single client stands as it is.
    clients : tuple of str
        Who they are, each once, in the order in which they failed.
    """

    phase: str
    cause: str
    clients: tuple[str, ...]


def grouped(failures: Iterable[Failure]) -> list[FailureGroup]:
    """Group failures by phase and cause, the most frequent first.

    Two causes are one if they differ only in the failing client's own id, in numbers, and in
    hexadecimal digests: a thousand uploads with a norm above the limit are one cause.
    """
    found: dict[tuple[str, tuple[str, ...]], list[tuple[str, list[str]]]] = {}
    for failure in failures:
        parts = _split(failure)
        fixed, varying = tuple(parts[::2]), parts[1::2]
        found.setdefault((failure.phase, fixed), []).append((failure.client, varying))
    groups = [
        FailureGroup(
            phase,
            _merged(fixed, [varying for _, varying in members]),
            tuple(dict.fromkeys(client for client, _ in members)),
        )
        for (phase, fixed), members in found.items()
    ]
    return sorted(groups, key=lambda group: -len(group.clients))


def causes_of(failures: Iterable[Failure]) -> str:
    """List in one line which clients failed in which phase and why, each cause once."""
    return failure_line(failure_rows(failures))


def failed_line(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say how many clients failed, then the rows of `failure_rows`, in one line."""
    count = sum(row["clients"] for row in rows)
    return f"{count} client{'s' * (count != 1)} failed: {failure_line(rows)}"


def failure_line(rows: Iterable[Mapping[str, Any]]) -> str:
    """Spell out the rows of `failure_rows` in one line."""
    return "; ".join(
        f"{row['clients']} x {row['phase']}{_who(row)}: {row['cause']}" for row in rows
    )


def named_clients(row: Mapping[str, Any]) -> str:
    """Name the first few clients of a row of `failure_rows`; empty if it names none."""
    named, more = ", ".join(row.get("named", ())), row["clients"] - len(row.get("named", ()))
    return f"{named} and {more} more" if named and more > 0 else named


def _who(row: Mapping[str, Any]) -> str:
    named = named_clients(row)
    return f" ({named})" if named else ""


def failure_rows(failures: Iterable[Failure]) -> list[dict[str, Any]]:
    """Return the groups as rows of JSON.

    Each has ``phase``, ``cause``, the number of ``clients``, and the first few of them as
    ``named``.
    """
    return [
        {
            "phase": group.phase,
            "cause": group.cause,
            "clients": len(group.clients),
            # Sorted: the order in which clients fail differs from run to run.
            "named": sorted(group.clients)[:_NAMED],
        }
        for group in grouped(failures)
    ]


def _split(failure: Failure) -> list[str]:
    """Split a cause into what is fixed (even places) and what may vary (odd ones)."""
    own = rf"(?<![A-Za-z0-9]){re.escape(failure.client)}(?![A-Za-z0-9])"
    return re.split(f"({own}|{_VARYING})", failure.cause)


def _merged(fixed: Sequence[str], members: Sequence[Sequence[str]]) -> str:
    text = fixed[0]
    for place, after in enumerate(fixed[1:]):
        values = {varying[place] for varying in members}
        text += (values.pop() if len(values) == 1 else _ELIDED) + after
    return text
