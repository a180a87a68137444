"""``make bench-methods``: fedcert and what it is compared with, at every n.

Every method gets the same upstream clients, the same tuning clients and at most eight
variants, and what it tries is chosen by one rule: the lowest mean certificate on the tuning
clients, at each n. Outcomes are kept in the cache, so a run that stopped goes on, and a
scenario that was run alone before is not run again.

A method of your own takes part by ``--method module:Class``, a scenario of your own by
``--scenario module:Class``.
"""

from __future__ import annotations

import argparse
import importlib
import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedcert.atomic import write_atomically
from fedcert.baselines import METHODS, Method
from fedcert.certificates.bounds import chance_of
from fedcert.certificates.replay import limit
from fedcert.errors import FedcertError, SettingsError
from fedcert.machine import describe_machine, versions
from fedcert.results import write_json
from fedcert.simulations.benchmarks.certificates import CANDIDATES, CASES, DELTA, Case
from fedcert.simulations.benchmarks.methods_bench import LIMIT_METHODS, MethodBench
from fedcert.simulations.benchmarks.methods_page import methods_page
from fedcert.simulations.benchmarks.publishing import publish
from fedcert.threads import torch_threads

__all__ = ["main", "measure"]

SIZES = (16, 32, 64, 128, 256)
SEEDS = (0, 1, 2)
CLIENTS = {"digits": (20, 12), "intents": (12, 8), "politeness": (12, 8)}
"""New clients that are measured, and clients that tune, per seed."""


@dataclass(frozen=True)
class Outcome:
    """One new client's outcome with one method at one n."""

    method: str
    n: int
    seed: int
    certificate: float
    error: float
    global_error: float
    seconds: float
    up_bytes: int
    down_bytes: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and render; a part of the benchmark goes to a folder of its own."""
    options = _options(arguments)
    try:
        cases = _cases(options)
        methods = METHODS + tuple(_method(name) for name in options.method or ())
        with torch_threads(1):  # for comparable times, and the same last bits everywhere
            record = measure(cases, methods, seeds=options.seeds, sizes=options.sizes)
    except FedcertError as error:
        sys.exit(f"error: {error}")
    page = methods_page(record)
    if options.output is None:
        publish("methods", record, {"benchmarks.md": page})
        return
    write_json(options.output / "methods.json", record)
    write_atomically(options.output / "benchmarks.md", page.encode())
    sys.stdout.write(f"wrote {options.output}/methods.json and benchmarks.md\n")


def measure(
    cases: Sequence[Case],
    methods: Sequence[type[Method]],
    *,
    seeds: Sequence[int],
    sizes: Sequence[int],
) -> dict[str, Any]:
    """Return the record of every case with every method."""
    missing, table, chosen = {}, [], []
    for case in cases:
        try:
            rows, configs = _measured(case, methods, seeds, sizes)
        except SettingsError as error:  # data or base model are not on this machine
            missing[case.scenario] = str(error)
            sys.stdout.write(f"left out: {error}\n")
        else:
            table += rows
            chosen += configs
    return {
        "command": "make bench-methods",
        "seeds": list(seeds),
        "sizes": list(sizes),
        "candidates": CANDIDATES,
        "delta": DELTA,
        "limit_methods": list(LIMIT_METHODS),
        "cases": [{"scenario": c.scenario, "new": c.new, "tuning": c.planners} for c in cases],
        "machine": describe_machine(),
        "versions": versions(),
        "missing": missing,
        "table": table,
        "chosen": chosen,
    }


def _measured(
    case: Case, methods: Sequence[type[Method]], seeds: Sequence[int], sizes: Sequence[int]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    outcomes: list[Outcome] = []
    chosen: list[dict[str, Any]] = []
    risks: dict[tuple[int, str], list[float]] = defaultdict(list)
    labels = 0
    for seed in seeds:
        bench = MethodBench(case, seed, sizes)
        labels = len(bench.scenario.labels)
        clients = bench.scenario.new_clients[: case.new]
        for method in methods:
            sys.stdout.write(f"{case.scenario}, seed {seed}, {method.name}: ")
            try:
                best = bench.tune(method, on_client=_dot)
            except SettingsError as error:  # the model has no head, for instance
                sys.stdout.write(f"left out: {error}\n")
                continue
            chosen += [
                {"scenario": case.scenario, "seed": seed, "name": method.name, "n": n}
                | best[n].config()
                for n in sizes
            ]
            for client in clients:
                outcomes += [
                    _outcome(method.name, seed, row, best[row["n"]])
                    for row in bench.measure(best, client)
                ]
                _dot()
            sys.stdout.write("\n")
        for client in clients:
            for row in bench.risks(client):
                risks[row["n"], row["method"]].append(row["error"])
    limits = {n: _limit(n, risks) for n in {n for n, _ in risks}}
    chance = chance_of(labels)
    return [_row(case.scenario, key, group, limits[key[1]], chance)
            for key, group in _grouped(outcomes).items()], chosen  # fmt: skip


def _dot() -> None:
    sys.stdout.write(".")
    sys.stdout.flush()


def _outcome(name: str, seed: int, row: dict[str, Any], variant: Method) -> Outcome:
    traffic = variant.traffic()
    return Outcome(
        method=name,
        n=row["n"],
        seed=seed,
        certificate=row["certificate"],
        error=row["error"],
        global_error=row["global_error"],
        seconds=row["seconds"],
        up_bytes=traffic.up,
        down_bytes=traffic.down,
    )


def _grouped(outcomes: Sequence[Outcome]) -> dict[tuple[str, int, int], list[Outcome]]:
    groups: dict[tuple[str, int, int], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.method, outcome.n, outcome.seed].append(outcome)
    return groups


def _limit(n: int, risks: dict[tuple[int, str], list[float]]) -> tuple[float, str]:
    """Return the limit at n over all seeds, and the method of the list that gives it."""
    means = {name: float(np.mean(found)) for (size, name), found in risks.items() if size == n}
    name = min(means, key=lambda name: means[name])
    return limit(np.array(risks[n, name]), n, DELTA), name


def _row(
    scenario: str,
    key: tuple[str, int, int],
    outcomes: Sequence[Outcome],
    limited: tuple[float, str],
    chance: float,
) -> dict[str, Any]:
    """Average over the clients of one seed."""
    errors = np.sort([outcome.error for outcome in outcomes])
    bounds = np.array([outcome.certificate for outcome in outcomes])
    first = outcomes[0]
    return {
        "scenario": scenario,
        "method": key[0],
        "n": key[1],
        "seed": key[2],
        "error": float(errors.mean()),
        "worst_decile_error": float(errors[-math.ceil(len(errors) / 10) :].mean()),
        "certificate": float(bounds.mean()),
        "nonvacuous": float((bounds < chance).mean()),
        "limit": limited[0],
        "limit_method": limited[1],
        "violations": int(sum(o.error > o.certificate for o in outcomes)),
        "global_error": float(np.mean([outcome.global_error for outcome in outcomes])),
        "up_bytes": first.up_bytes,
        "down_bytes": first.down_bytes,
        "client_seconds": float(np.mean([outcome.seconds for outcome in outcomes])),
        "clients": len(outcomes),
    }


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="methods", description=__doc__)
    parser.add_argument(
        "--scenario", action="append", help="run this one alone; may come several times"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--clients", type=int, help="measure so many new clients per seed")
    parser.add_argument("--tuning", type=int, help="tune on so many clients per seed")
    parser.add_argument("--method", action="append", help="compare module:Class as well")
    parser.add_argument("--output", type=Path, help="folder for the record and the page")
    options = parser.parse_args(arguments)
    options.sizes = sorted(set(options.sizes))
    part = (
        options.scenario or options.method or options.clients or options.tuning
        or options.seeds != list(SEEDS) or options.sizes != list(SIZES)
    )  # fmt: skip
    if part and options.output is None:
        parser.error(
            "a part of the benchmark does not go into docs/: name a folder by --output"
        )
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
        raise SettingsError(f"{name} is no subclass of fedcert.baselines.Method")
    return found


if __name__ == "__main__":
    main()
