"""Which benchmark measured which task, on how many seeds and clients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["COVERED", "task_coverage"]

COVERED = (
    "named", "methods", "launched", "certificates", "sweeps", "warm_start", "domains", "tables",
)  # fmt: skip
"""The records that `task_coverage` reads."""


@dataclass
class _Cell:
    """What a record has of a task."""

    clients: dict[int, int] = field(default_factory=dict)
    wanted: int = 0
    waiting: bool = False

    def __str__(self) -> str:
        seeds = len(self.clients)
        if not seeds:
            return f"0 of {self.wanted}"
        of = f" of {self.wanted}" if self.wanted > seeds else ""
        counts = sorted({*self.clients.values()})
        each = "-".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
        return f"{seeds}{of} x {each}{'*' if self.waiting else ''}"


Cells = dict[str, _Cell]


def task_coverage(
    records: Mapping[str, Mapping[str, Any]], pages: Mapping[str, str]
) -> list[str]:
    """Return a section that says what is measured of each task, as Markdown lines.

    Parameters
    ----------
    records : Mapping[str, Mapping[str, Any]]
        Those of `COVERED`, by name. What is missing is left out.
    pages : Mapping[str, str]
        What is rendered from each of them.

    Returns
    -------
    list of str
        The section; empty without a record.
    """
    found = {name: cells for name in COVERED if (cells := _cells(name, records.get(name, {})))}
    if not found:
        return []
    tasks = sorted({task for cells in found.values() for task in cells})
    return [
        "## What is measured of each task",
        "",
        "Seeds x new clients of each. *1 of 3* where seeds are still to be measured, *0 of 3* "
        "where a benchmark has the task but no figure yet, and a star where methods are "
        "missing of a seed that is there. An empty cell: the benchmark does not have the task. "
        "Not every method runs on all of these clients, which the pages say.",
        "",
        f"| task | {' | '.join(f'[{pages[name]}]({pages[name]})' for name in found)} |",
        "|---" * (1 + len(found)) + "|",
        *(
            f"| `{task}` | {' | '.join(str(cells.get(task, '')) for cells in found.values())} |"
            for task in tasks
        ),
        "",
    ]


def _cells(name: str, record: Mapping[str, Any]) -> Cells:
    if not record:
        return {}
    cells: Cells = defaultdict(_Cell)
    for task, seed, clients in _measured(name, record):
        known = cells[task].clients.get(seed, 0)
        cells[task].clients[seed] = max(known, clients)
    for task, seeds in _wanted(name, record):
        cells[task].wanted = seeds
    for task, seed in _waiting(name, record):
        cells[task].waiting |= seed in cells[task].clients
    return dict(cells)


def _measured(name: str, record: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
    """Yield task, seed, and how many new clients a row is of."""
    for row in record["table"]:
        if name == "certificates":
            seeds = record["seeds"][row["scenario"]]
        else:
            seeds = row.get("seeds", [row.get("seed")])
        for seed in seeds:
            clients = record["new"] if name == "domains" else row["clients"]
            yield _task(row), seed, clients // len(seeds)


def _task(row: Mapping[str, Any]) -> str:
    setting = row.get("setting")
    return f"{row['scenario']}, {setting}" if setting else str(row["scenario"])


def _wanted(name: str, record: Mapping[str, Any]) -> Iterable[tuple[str, int]]:
    """Yield tasks with the number of seeds that a benchmark has by default."""
    cases = record.get("cases") or record.get("cells") or ()
    return [(_task(case), len(record["seeds"])) for case in cases]


def _waiting(name: str, record: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield tasks and seeds of which something is missing."""
    for row in record.get("unfinished", []):
        yield _task(row), row["seed"]
    for case in record.get("cases", []) if name == "methods" else ():
        for seed, methods in case["unfinished"].items():
            if methods:
                yield _task(case), int(seed)
