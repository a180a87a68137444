"""From single outcomes to the rows of the table: means over the clients of a seed."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedcert.certificates.bounds import chance_of
from fedcert.errors import SettingsError
from fedcert.simulations.benchmarks.certificates import DELTA, Case
from fedcert.simulations.benchmarks.comparison import Method
from fedcert.simulations.benchmarks.federations import NotMeasuredError
from fedcert.simulations.benchmarks.methods_bench import MethodBench
from fedcert.simulations.benchmarks.publishing import say
from fedcert.simulations.benchmarks.recipes import limit

__all__ = ["SeedResult", "measured_seed", "table_of"]


@dataclass(frozen=True)
class ClientResult:
    """One new client's outcome with one method at one n."""

    method: str
    n: int
    certificate: float
    error: float
    global_error: float
    seconds: float
    up_bytes: int
    down_bytes: int


@dataclass(frozen=True)
class SeedResult:
    """What one seed of a scenario gave.

    Attributes
    ----------
    outcomes : list of ClientResult
        Results of every method, client and n.
    chosen : list of dict
        The configuration that tuning chose, by method and n.
    risks : list of dict
        True errors of the limit's methods, by client and n.
    memory : dict
        Peak memory of one client above what was in use before, MiB, by method.
    labels : int
        How many labels there are.
    unfinished : list of str
        Methods that are not in the cache where nothing may be measured.
    """

    outcomes: list[ClientResult]
    chosen: list[dict[str, Any]]
    risks: list[dict[str, Any]]
    memory: dict[str, float]
    labels: int
    unfinished: list[str] = field(default_factory=list)


def table_of(
    case: Case, results: Sequence[tuple[int, SeedResult]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of what was measured by seed, and the chosen configurations."""
    risks: dict[tuple[int, str], list[float]] = defaultdict(list)
    for _, result in results:
        for row in result.risks:
            risks[row["n"], row["method"]].append(row["error"])
    limits = {n: _limit(n, risks) for n in {n for n, _ in risks}}
    table = []
    for seed, result in results:
        for (name, n), group in _grouped(result.outcomes).items():
            row = _row(group, limits[n], chance_of(result.labels))
            about = {"scenario": case.scenario, "method": name, "n": n, "seed": seed}
            table.append(about | row | {"memory_mib": result.memory[name]})
    return table, [entry for _, result in results for entry in result.chosen]


def measured_seed(
    case: Case, methods: Sequence[type[Method]], seed: int, sizes: Sequence[int]
) -> SeedResult:
    """Tune and measure every method on one seed; what is in the cache is not done again.

    Parameters
    ----------
    case : Case
        The scenario with its options.
    methods : sequence of type of Method
        The methods to compare.
    seed : int
        The federation's.
    sizes : sequence of int
        Values of n.

    Returns
    -------
    SeedResult
        Rows of measurements, and the configurations that tuning chose.
    """
    bench = MethodBench(case, seed, sizes)
    clients = bench.scenario.new_clients[: case.new]
    # First, since nothing can be shown without the limit.
    risks = [row for client in clients for row in bench.risks(client)]
    result = SeedResult([], [], risks, {}, len(bench.scenario.labels))
    for method in methods:
        say(f"{case.scenario}, seed {seed}, {method.name}: ", end="")
        try:
            _measure(result, bench, method, clients, sizes)
        except SettingsError as error:  # the model has no head, for instance
            say(f"left out: {error}", end="")
        except NotMeasuredError:
            say("not finished", end="")
            result.unfinished.append(method.name)
        say("")
    if len(result.unfinished) == len(methods):
        raise NotMeasuredError(f"{case.scenario}, seed {seed}: no method is finished")
    return result


def _measure(
    result: SeedResult,
    bench: MethodBench,
    method: type[Method],
    clients: Sequence[str],
    sizes: Sequence[int],
) -> None:
    """Add a method's outcomes, all of them or none."""
    best = bench.tune(method, on_client=_dot)
    outcomes = []
    for client in clients:
        outcomes += [
            _outcome(method.name, row, best[row["n"]]) for row in bench.measure(best, client)
        ]
        _dot()
    result.memory[method.name] = bench.memory(best, clients[0])
    about = {"scenario": bench.case.scenario, "seed": bench.seed, "name": method.name}
    result.chosen.extend(about | {"n": n} | best[n].config() for n in sizes)
    result.outcomes.extend(outcomes)


def _dot() -> None:
    say(".", end="")


def _outcome(name: str, row: dict[str, Any], variant: Method) -> ClientResult:
    traffic = variant.traffic()
    return ClientResult(
        method=name,
        n=row["n"],
        certificate=row["certificate"],
        error=row["error"],
        global_error=row["global_error"],
        seconds=row["seconds"],
        up_bytes=round(traffic.up),
        down_bytes=traffic.new or 0,
    )


def _grouped(outcomes: Sequence[ClientResult]) -> dict[tuple[str, int], list[ClientResult]]:
    groups: dict[tuple[str, int], list[ClientResult]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.method, outcome.n].append(outcome)
    return groups


def _limit(n: int, risks: dict[tuple[int, str], list[float]]) -> tuple[float, str]:
    """Return the limit at n over all seeds, and the method of the list that gives it."""
    means = {name: float(np.mean(found)) for (size, name), found in risks.items() if size == n}
    name = min(means, key=lambda name: means[name])
    return limit(np.array(risks[n, name]), n, DELTA), name


def _row(
    outcomes: Sequence[ClientResult], limited: tuple[float, str], chance: float
) -> dict[str, Any]:
    """Average over the clients of one seed."""
    errors = np.sort([outcome.error for outcome in outcomes])
    bounds = np.array([outcome.certificate for outcome in outcomes])
    first = outcomes[0]
    return {
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
