"""``make bench-promises``: what a certificate says beside its bound.

Each kind of promise has a module of its own beside this one; this one puts their rows into one
record and one page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from fedcert.errors import FedcertError, SettingsError
from fedcert.runs.machine import describe_machine, versions
from fedcert.simulations.benchmarks import (
    living_episodes,
    mutants,
    point_episodes,
    promise_episodes,
    promises_kept,
)
from fedcert.simulations.benchmarks.promises_page import promises_page
from fedcert.simulations.benchmarks.publishing import kept_record, publish
from fedcert.threads import torch_threads

__all__ = ["documents", "main"]

SEEDS = (0,)
EPISODES = 10_000


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the asked parts, keep the others of the last record, and render the page."""
    options = _options(arguments)
    part = bool(options.case) or set(options.part) < set(_PARTS)
    record = kept_record("promises") if part and options.output is None else {}
    record |= {
        "command": "make bench-promises",
        "seeds": list(options.seeds),
        "delta": promises_kept.DELTA,
        "machine": describe_machine(),
        "versions": versions(),
    }
    try:
        with torch_threads(1):
            for part in options.part:
                for table in _PARTS[part](options):
                    record |= table
                    publish("promises", record, documents(record), folder=options.output)
    except FedcertError as error:
        sys.exit(f"error: {error}")


def documents(record: dict[str, Any]) -> dict[str, str]:
    """Return what is rendered from a record, by path below ``docs/``."""
    return {"promises.md": promises_page(record)}


def _played(options: argparse.Namespace) -> Any:
    found = []
    plays = (promise_episodes, point_episodes, living_episodes)
    for row in chain.from_iterable(play.rows(options.episodes) for play in plays):
        found.append(row)
        _say(".")
    yield {"validity": found}


def _broken(options: argparse.Namespace) -> Any:
    found = []
    for row in mutants.rows("promises", options.episodes):
        found.append(row)
        _say(".")
    yield {"mutants": found}


def _kept(options: argparse.Namespace) -> Any:
    table: dict[str, list[dict[str, Any]]] = {}
    missing = {}
    cases = [c for c in promises_kept.CASES if options.case in ("", c.cell.scenario)]
    alone = options.case and options.output is None
    earlier = kept_record("promises").get("kept", []) if alone else []
    for case in cases:
        name = case.cell.scenario
        _say(f"{name}: ")
        try:
            table[name] = [
                row
                for seed in options.seeds
                for row in promises_kept.rows(case, seed, lambda: _say("."))
            ]
        except SettingsError as error:  # data or base model are not on this machine
            missing[name] = str(error)
            continue
        kept = [row for row in earlier if row["scenario"] not in table]
        measured = [row for rows in table.values() for row in rows]
        yield {"kept": [*kept, *measured], "missing": missing}


_PARTS = {"kept": _kept, "validity": _played, "mutants": _broken}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", nargs="*", choices=list(_PARTS), default=list(_PARTS))
    parser.add_argument("--case", default="", help="one scenario alone")
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--episodes", type=int, default=EPISODES)
    parser.add_argument("--output", type=Path, help="a folder for a part of it")
    return parser.parse_args(arguments)


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


if __name__ == "__main__":
    main()
