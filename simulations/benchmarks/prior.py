"""``make bench-prior``: every prior at equal M on unseen tasks, and what a fit costs."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedcert import __version__
from fedcert.arrays import FloatArray
from fedcert.errors import SettingsError
from fedcert.evaluation.profiles import client_risks
from fedcert.priors import PRIORS, Prior
from fedcert.randomness import derive_seed, small_seed
from fedcert.runs.machine import describe_machine, versions
from fedcert.simulations.benchmarks.federations import Federation, remembered
from fedcert.simulations.benchmarks.prior_audit import audit_rows
from fedcert.simulations.benchmarks.prior_federated import federated_rows
from fedcert.simulations.benchmarks.prior_measures import NEW, SEED
from fedcert.simulations.benchmarks.prior_mixed import mixed_rows
from fedcert.simulations.benchmarks.prior_page import prior_figures, prior_page
from fedcert.simulations.benchmarks.prior_poisoning import poisoning_rows
from fedcert.simulations.benchmarks.prior_privacy import privacy_rows
from fedcert.simulations.benchmarks.prior_robustness import robustness_rows
from fedcert.simulations.benchmarks.publishing import publish, say

__all__ = ["documents", "main"]

POOLS = (32, 128, 512)


@dataclass(frozen=True)
class Case:
    """One scenario, with the values of M at which its priors are compared."""

    scenario: str
    options: dict[str, Any]
    counts: tuple[int, ...]
    seeds: tuple[int, ...] = (0, 1, 2)


CASES = (
    Case("digits", {"upstream": 512, "new": 60}, (10, 100, 1000, 10000)),
    # Text is read at all tokens: an adapter takes seconds to train, and a candidate to score.
    Case("intents", {"upstream": 128, "new": 12}, (10, 100), seeds=(0,)),
    Case("politeness", {"upstream": 0, "new": 12}, (10, 100), seeds=(0,)),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and render; scenarios that are not asked for are named as missing."""
    asked = _options(arguments).scenario or [case.scenario for case in CASES]
    risks: dict[tuple[str, int, str, int], list[FloatArray]] = defaultdict(list)
    missing = {
        case.scenario: "not measured yet" for case in CASES if case.scenario not in asked
    }
    for case in [case for case in CASES if case.scenario in asked]:
        try:
            for pool, kind, values in _measure(case):
                for column, m in enumerate(case.counts):
                    risks[case.scenario, pool, kind, m].append(values[:, column])
        except SettingsError as error:  # data or base model are not on this machine
            missing[case.scenario] = str(error)
            say(f"left out: {error}")
    record = {
        "command": "make bench-prior",
        "seeds": {case.scenario: list(case.seeds) for case in CASES},
        "machine": describe_machine(),
        "versions": versions(),
        "missing": missing,
        "table": [_row(*key, values) for key, values in risks.items()],
        "audit": [
            row for case in CASES if case.scenario not in missing for row in _audits(case)
        ],
        **{name: _extra(name, rows) for name, rows in _EXTRAS.items()},
        "poisoning": _extra("poisoning", lambda _federation: poisoning_rows()),
    }
    publish("prior", record, documents(record))


_OPTIONS: dict[str, Any] = {"upstream": 128, "new": NEW}
_EXTRAS: dict[str, Callable[[Federation], list[dict[str, Any]]]] = {
    "privacy": privacy_rows,
    "federated": federated_rows,
    "robustness": robustness_rows,
    "mixed": mixed_rows,
}


def documents(record: dict[str, Any]) -> dict[str, str]:
    """Return what is rendered from a record, by path below ``docs/``."""
    return {"prior.md": prior_page(record)} | prior_figures(record)


def _extra(
    name: str, rows: Callable[[Federation], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    say(f"{name}")
    federation = Federation.of("digits", seed=SEED, **_OPTIONS)
    settings = federation.settings.model_dump()
    identity = {"rows": name, "settings": settings, "version": __version__}
    found: list[dict[str, Any]] = remembered("prior", identity, lambda: rows(federation))
    return found


def _audits(case: Case) -> list[dict[str, Any]]:
    federation = Federation.of(case.scenario, seed=case.seeds[0], **case.options)
    return audit_rows(case.scenario, federation.pool(), sizes=POOLS)


def _measure(case: Case) -> Iterator[tuple[int, str, FloatArray]]:
    """Yield pool size, prior, and its risks ``(unseen tasks, values of M)``, by seed."""
    for seed in case.seeds:
        federation = Federation.of(case.scenario, seed=seed, **case.options)
        say(f"{case.scenario}, seed {seed}: adapters of the upstream clients")
        pool = federation.pool()
        sizes = sorted({min(size, len(pool)) for size in POOLS})
        for size in sizes:
            for kind in PRIORS:
                prior = PRIORS[kind].fit(pool[:size], seed=small_seed("prior", seed))
                values = _risks(federation, prior, case.counts)
                means = ", ".join(f"{value:.3f}" for value in values.mean(axis=0))
                say(f"  pool {size:4d}  {kind:10s} {means}")
                yield size, kind, values


def _risks(federation: Federation, prior: Prior, counts: tuple[int, ...]) -> FloatArray:
    """Return best-of-M risks by unseen task; what was measured before is in the cache."""
    identity = {
        "prior": prior.digest,
        "scenario": federation.settings.scenario.model_dump(),
        "space": federation.model.space.digest,
        "counts": list(counts),
    }

    def measure() -> list[list[float]]:
        vectors = prior.sample(
            derive_seed("risk profile", federation.settings.seed), count=max(counts)
        )
        model, scenario = federation.model, federation.scenario
        risks: list[list[float]] = client_risks(
            model, scenario, vectors, list(counts), clients=scenario.new_clients
        ).tolist()
        return risks

    return np.array(remembered("risks", identity, measure))


def _row(
    scenario: str, pool: int, kind: str, m: int, by_seed: list[FloatArray]
) -> dict[str, Any]:
    """Average over tasks and seeds; tasks are drawn anew by each seed."""
    errors = [values.std(ddof=1) / len(values) ** 0.5 for values in by_seed]
    return {
        "scenario": scenario,
        "pool": pool,
        "prior": kind,
        "m": m,
        "risk": float(np.mean([values.mean() for values in by_seed])),
        "se": float(np.sqrt(np.sum(np.square(errors))) / len(by_seed)),
        "tasks": sum(len(values) for values in by_seed),
    }


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="prior", description=__doc__)
    parser.add_argument(
        "--scenario",
        action="append",
        choices=[case.scenario for case in CASES],
        help="this one alone; may be repeated",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
