"""``make bench-methods``: fedcert and what it is compared with, at every n.

Every method gets the same upstream clients, the same tuning clients and at most eight
variants, and what it tries is chosen by one rule: at each n the lowest mean certificate on the
tuning clients, with its standard error on top. Outcomes are kept in the cache, so a run that
stopped goes on, and a scenario that was run alone before is not run again.

A method of your own takes part by ``--method module:Class``, a scenario of your own by
``--scenario module:Class``.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from fedcert.errors import FedcertError, SettingsError
from fedcert.runs.machine import describe_machine, versions
from fedcert.simulations.benchmarks.certificates import CANDIDATES, CASES, DELTA, Case
from fedcert.simulations.benchmarks.comparison import METHODS, Method
from fedcert.simulations.benchmarks.federations import NotMeasuredError, only_remembered
from fedcert.simulations.benchmarks.methods_bench import LIMIT_METHODS
from fedcert.simulations.benchmarks.methods_page import (
    methods_figures,
    methods_page,
)
from fedcert.simulations.benchmarks.methods_table import SeedResult, measured_seed, table_of
from fedcert.simulations.benchmarks.options import parsed, parser_of
from fedcert.simulations.benchmarks.publishing import publish, say
from fedcert.simulations.benchmarks.workers import side_by_side
from fedcert.threads import torch_threads

__all__ = ["documents", "main", "measure"]

SIZES = (16, 32, 64, 128, 256)
SEEDS = (0, 1, 2)
CLIENTS = {"digits": (12, 8), "intents": (12, 8), "politeness": (12, 8)}
"""New clients that are measured, and clients that tune, per seed."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and render; a part of the benchmark goes to a folder of its own."""
    options = _options(arguments)
    try:
        cases = _cases(options)
        methods = METHODS + tuple(_method(name) for name in options.method or ())
        if options.workers > 1 and not options.finished:
            _fill(cases, methods, options)
        # One thread: for comparable times, and the same last bits everywhere.
        with torch_threads(1), only_remembered() if options.finished else nullcontext():
            record = measure(cases, methods, seeds=options.seeds, sizes=options.sizes)
    except FedcertError as error:
        sys.exit(f"error: {error}")
    publish("methods", record, documents(record), folder=options.output)


def documents(record: dict[str, Any]) -> dict[str, str]:
    """Return what is rendered from a record, by path below ``docs/``."""
    return {"benchmarks.md": methods_page(record), **methods_figures(record)}


def measure(
    cases: Sequence[Case],
    methods: Sequence[type[Method]],
    *,
    seeds: Sequence[int],
    sizes: Sequence[int],
) -> dict[str, Any]:
    """Return the record of every case with every method.

    Seeds that are not in the cache are left out where nothing may be measured.

    Parameters
    ----------
    cases : sequence of Case
        Scenarios with their options.
    methods : sequence of type of Method
        The methods to compare.
    seeds : sequence of int
        Seeds of the federations.
    sizes : sequence of int
        Values of n.

    Returns
    -------
    dict
        The benchmark's record, a JSON object.
    """
    missing, table, chosen, about = {}, [], [], []
    for case in cases:
        try:
            found = [*_results(case, methods, seeds, sizes)]
        except SettingsError as error:  # data or base model are not on this machine
            missing[case.scenario] = str(error)
            say(f"left out: {error}")
            continue
        # Means are compared on the same clients: a seed that lacks methods has to wait, unless
        # none has them all.
        results = [each for each in found if not each[1].unfinished] or found
        rows, configs = table_of(case, results)
        table += rows
        chosen += configs
        done = [seed for seed, _ in results]
        waiting = {str(seed): result.unfinished for seed, result in results}
        about.append({"scenario": case.scenario, "new": case.new, "tuning": case.planners,
                      "seeds": done, "unfinished": waiting})  # fmt: skip
    return {
        "command": "make bench-methods",
        "seeds": list(seeds),
        "sizes": list(sizes),
        "candidates": CANDIDATES,
        "delta": DELTA,
        "limit_methods": list(LIMIT_METHODS),
        "cases": about,
        "machine": describe_machine(),
        "versions": versions(),
        "missing": missing,
        "table": table,
        "chosen": chosen,
    }


def _results(
    case: Case, methods: Sequence[type[Method]], seeds: Sequence[int], sizes: Sequence[int]
) -> Iterator[tuple[int, SeedResult]]:
    for seed in seeds:
        try:
            yield seed, measured_seed(case, methods, seed, sizes)
        except NotMeasuredError:
            say(f"{case.scenario}, seed {seed}: not finished")


def _fill(
    cases: Sequence[Case], methods: Sequence[type[Method]], options: argparse.Namespace
) -> None:
    """Measure scenarios and seeds side by side; `measure` then finds them in the cache."""
    parts = [
        partial(_part, case, methods, seed, options.sizes)
        for seed in options.seeds
        for case in cases
    ]
    say(f"{len(parts)} parts on {options.workers} workers")
    side_by_side(
        parts,
        workers=options.workers,
        on_part=lambda done: say(f"{done} of {len(parts)} parts are done"),
    )


def _part(case: Case, methods: Sequence[type[Method]], seed: int, sizes: Sequence[int]) -> None:
    # A scenario that is missing here is reported by `measure`.
    with suppress(SettingsError):
        measured_seed(case, methods, seed, sizes)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of("methods", __doc__, seeds=SEEDS, finished=True)
    parser.add_argument(
        "--scenario", action="append", help="run this one alone; may come several times"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--clients", type=int, help="measure so many new clients per seed")
    parser.add_argument("--tuning", type=int, help="tune on so many clients per seed")
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="scenarios and seeds run side by side on so many Ray workers (default: all cores)",
    )
    parser.add_argument("--method", action="append", help="compare module:Class as well")
    options = parsed(parser, arguments)
    options.sizes = sorted(set(options.sizes))
    if min(options.sizes) < 4 or any(
        count is not None and count < 1 for count in (options.clients, options.tuning)
    ):
        parser.error("sizes must be at least 4, and --clients and --tuning at least 1")
    return options


def _cases(options: argparse.Namespace) -> list[Case]:
    known = {}
    for case in CASES:
        new, planners = CLIENTS.get(case.scenario, (case.new, case.planners))
        known[case.scenario] = replace(case, new=new, planners=planners)
    names = options.scenario or list(known)
    cases = [known.get(name) or Case(name, {}, {}, 10, 8) for name in names]
    return [
        replace(
            case,
            new=options.clients or case.new,
            planners=options.tuning or case.planners,
        )
        for case in cases
    ]


def _method(name: str) -> type[Method]:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(
            f"there is no method {name!r}: {error}; give module:Class"
        ) from None
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise SettingsError(
            f"{name} is no subclass of fedcert.simulations.benchmarks.comparison.Method"
        )
    return found


if __name__ == "__main__":
    main()
