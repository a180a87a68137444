"""``make bench-launched``: every method launched by its setting, as users do.

Each run is one of `simulate`, at the settings of its scenario: nothing is tuned. What fewer
labels would certify comes of the same run, whose recipes are replayed on parts of the support
sets (`fedcert.evaluation.by_size`). Beside it, what `personal.pull` and `personal.keep` trade:
own error, error elsewhere, and certificate over a grid, from the adapter that one run of FedAvg
published. Rows are kept in the cache, so that a benchmark which stopped goes on, and are
written after each run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fedcert.bundles import Bundle
from fedcert.certificates import PosteriorSplitRecipe
from fedcert.errors import FedcertError, MethodRefusedError, SettingsError
from fedcert.evaluation.by_size import SERVED
from fedcert.evaluation.clients import scorers
from fedcert.evaluation.elsewhere import errors_elsewhere
from fedcert.methods import METHODS
from fedcert.methods.conditioned import ConditionedMethod
from fedcert.protocol.seeds import recipe_for_attempt
from fedcert.runs.machine import describe_machine, versions
from fedcert.scenarios import load_scenario
from fedcert.search.learning import finetuned
from fedcert.settings import RunSettings
from fedcert.settings.recipes import method_recipes
from fedcert.simulations.benchmarks.federations import (
    NotMeasuredError,
    only_remembered,
    remembered,
)
from fedcert.simulations.benchmarks.launched_page import launched_figures, launched_page
from fedcert.simulations.benchmarks.launched_record import launched_record
from fedcert.simulations.benchmarks.options import parsed, parser_of
from fedcert.simulations.benchmarks.publishing import kept_record, publish, say
from fedcert.simulations.benchmarks.recipes import limit
from fedcert.simulations.simulating import simulate
from fedcert.threads import torch_threads

__all__ = ["CASES", "Case", "documents", "main"]

# Raise it when a run gives something else for the same settings, or another refusal.
_VERSION = 4
SEEDS = (0, 1, 2)
PULLS = (0.001, 0.01, 0.1, 1.0, 10.0)
KEEPS = (0.0, 0.25, 0.5, 0.75)
TRADED = 64
"""Examples of each client that the grid of pulls and keeps is for."""
# The recipe that the settings name by default searches, whatever the prior and n are; a plan
# finds out what suits them.
PLANNED = "prior, planned"
RUNS: dict[str, dict[str, Any]] = {name: {"method": name} for name in METHODS} | {
    PLANNED: {"method": "prior", "certificate.recipe": "planned"}
}
"""What is launched: the settings of each, by the name of its row."""


@dataclass(frozen=True)
class Case:
    """A scenario with the settings that all its runs have, and those of methods with a net.

    With `trade`, the grid of pulls and keeps as well: on text it takes longer than all methods.
    With `named`, labels have names, and a tuned head competes with what a method learns.
    """

    scenario: str
    options: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    nets: dict[str, Any] = field(default_factory=lambda: {"net_rounds": 20})
    trade: bool = True
    named: bool = False

    def run(self, name: str, seed: int) -> RunSettings:
        """Return the settings of one of `RUNS`."""
        flat = {
            "seed": seed,
            # Other clients for each seed: the run's own seed leaves the scenario as it is.
            "scenario.options.seed": seed,
            "scenario.name": self.scenario,
            "evaluation.baselines": False,
            "certificate.support_size": 128,
            "device": "cpu",
            **{f"scenario.options.{name}": value for name, value in self.options.items()},
            **self.settings,
            **RUNS[name],
        }
        if issubclass(METHODS[flat["method"]], ConditionedMethod):
            flat |= {f"averaging.options.{name}": value for name, value in self.nets.items()}
        settings = RunSettings.from_flat(flat)
        if not self.named:
            return settings
        beside = RunSettings.from_flat(flat | {"personal.tuned_head": True})
        recipes = [method_recipes(each, each.method_of()) for each in (settings, beside)]
        return settings if recipes[0] == recipes[1] else beside


# Runs of minutes: half as many rounds as the defaults, of half as many clients. On text, where
# a step takes many times as long, fewer and smaller ones, and fewer candidates; what the frozen
# layers made of all clients' texts stays in memory from run to run.
_ROUNDS = {"averaging.rounds": 15, "averaging.clients": 8}
_ON_TEXT = {
    "averaging.rounds": 10,
    "averaging.clients": 6,
    "averaging.batch_size": 16,
    "training.steps": 24,
    "training.batch_size": 64,
    "client.cache_mib": 3000,
    "certificate.candidates": 100,
}
# Where many tokens are read, and heads are trained: what leaves fourteen methods on three seeds
# within a day.
_ON_LONG_TEXT = _ON_TEXT | {
    "averaging.rounds": 6,
    "averaging.clients": 4,
    "averaging.steps": 8,
    "training.steps": 16,
    "training.batch_size": 32,
    "personal.steps": 30,
    "certificate.candidates": 50,
    "certificate.support_size": 64,
}
CASES = (
    Case("digits", {"upstream": 32, "new": 12}, _ROUNDS),
    Case("named-intents", {"upstream": 32, "new": 12}, _ON_TEXT, trade=False, named=True),
    Case(
        "intents",
        {"upstream": 32, "new": 12},
        _ON_LONG_TEXT,
        {"net_rounds": 8},
        trade=False,
    ),
    Case(
        "politeness",
        {"upstream": 32, "new": 12},
        _ON_LONG_TEXT,
        {"net_rounds": 8},
        trade=False,
    ),
    Case(
        "topics",
        {
            "held_out": "half",
            "concentration": 0.5,
            "client_size": 70,
            "upstream": 32,
            "new": 12,
        },
        _ON_LONG_TEXT | {"certificate.support_size": 32},
        {"net_rounds": 8},
        trade=False,
    ),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Launch, and render; a part of the benchmark stands beside the rest of the last record."""
    options = _options(arguments)
    cases = [
        case for case in CASES if not options.scenario or case.scenario in options.scenario
    ]
    if options.quick:
        quick = {"averaging.rounds": 3, "averaging.steps": 5}
        small = {"upstream": 24, "new": 6}
        cases = [
            replace(
                c,
                options=c.options | small,
                settings=c.settings | quick,
                nets={"net_rounds": 2, "net_steps": 2},
            )
            for c in cases
        ]
    part = options.scenario or options.method or tuple(options.seeds) != SEEDS
    partly = (part or options.finished) and options.output is None
    kept = kept_record("launched") if partly else {}
    try:
        with torch_threads(1), only_remembered() if options.finished else nullcontext():
            for found in _growing(cases, options.method or list(RUNS), options.seeds):
                launched = launched_record(found, kept, order=[case.scenario for case in CASES])
                rendered = documents(launched)
                took = sum(row["seconds"] for row in launched["table"])
                publish("launched", launched, rendered, folder=options.output, seconds=took)
    except FedcertError as error:
        sys.exit(f"error: {error}")


def documents(record: dict[str, Any]) -> dict[str, str]:
    """Return what is rendered from a record, by path below ``docs/``."""
    return {"launched.md": launched_page(record), **launched_figures(record)}


def _growing(
    cases: Sequence[Case], methods: Sequence[str], seeds: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Yield the record after each run that was not known before, and at the end."""
    table: list[dict[str, Any]] = []
    trades: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    refused: list[dict[str, str]] = []
    unfinished: list[dict[str, Any]] = []

    def record() -> dict[str, Any]:
        return {
            "command": "make bench-launched",
            "seeds": list(seeds),
            "machine": describe_machine(),
            "versions": versions(),
            "cases": [asdict(case) for case in cases],
            "missing": missing,
            "refused": refused,
            "unfinished": unfinished,
            "table": table,
            "trade": trades,
        }

    for seed in seeds:
        for case in cases:
            for method in methods:
                if method == PLANNED and case.run(method, seed) == case.run("prior", seed):
                    continue  # the scenario's own settings plan
                try:
                    found = _launched(case, method, seed)
                except NotMeasuredError:
                    named = {"scenario": case.scenario, "method": method, "seed": seed}
                    unfinished.append(named)
                    continue
                except SettingsError as error:
                    missing[case.scenario] = str(error)
                    break
                if reason := found.get("refused"):
                    entry = {"scenario": case.scenario, "method": method}
                    refused.append(entry | {"reason": reason})
                table += found["rows"]
                trades += found["trade"]
                yield record()
    yield record()


def _launched(case: Case, method: str, seed: int) -> dict[str, Any]:
    settings = case.run(method, seed)
    # A setting that came later, at its default, changes nothing.
    asked = settings.model_dump(exclude_defaults=True)
    identity = {"version": _VERSION, "settings": asked}
    say(f"{case.scenario}, {method}, seed {seed}")

    def compute() -> dict[str, Any]:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            try:
                done = simulate(settings, output=Path(folder) / "run", runner="inprocess")
            except MethodRefusedError as error:
                return {"rows": [], "trade": [], "refused": str(error)}
            bundle = Bundle.load(done.output / "bundle")
            wanted = case.trade and method == "fedavg-local"
            trade = _trade(settings, bundle, done.output) if wanted else []
            row = {"method": method} | _row(done.results, settings)
        named = {"scenario": case.scenario, "seed": seed}
        row["seconds"] = time.perf_counter() - started
        return {"rows": [named | row], "trade": [named | each for each in trade]}

    found: dict[str, Any] = remembered("launched", identity, compute)
    return found


def _row(results: dict[str, Any], settings: RunSettings) -> dict[str, Any]:
    clients = results["clients"]
    errors = np.array([client["test_error"] for client in clients])
    elsewhere = [c["elsewhere_error"] for c in clients if c["elsewhere_error"] is not None]
    bounds = np.array([client["bound"] for client in clients])
    n, sent = settings.certificate.support_size, results["communication"]
    worst = np.sort(errors)[-max(1, round(len(errors) / 10)) :]
    # At the largest n the certificates themselves, at the others replays of what served them.
    served = [row for row in results["bound_by_n"] if row["recipe"] == SERVED]
    by_n = {row["n"]: row["bound"] for row in served} | {n: float(bounds.mean())}
    return {
        "n": n,
        "clients": len(clients),
        "error": float(errors.mean()),
        "worst_decile_error": float(worst.mean()),
        "elsewhere": float(np.mean(elsewhere)) if len(elsewhere) == len(clients) else None,
        "certificate": float(bounds.mean()),
        "bounds": bounds.tolist(),
        "nonvacuous": float((bounds < results["chance"]).mean()),
        # The limit: what a certificate would be if this run's own predictors came for free.
        "by_n": [
            {
                "n": size,
                "certificate": bound,
                "own_limit": limit(errors, size, settings.certificate.delta),
            }
            for size, bound in sorted(by_n.items())
        ],
        "verified": all(client["verified"] for client in clients),
        "up_bytes": sent["upload_bytes_per_client"],
        "down_bytes": sent["download_bytes_per_new_client"],
        "client_seconds": float(np.mean([client["seconds"] for client in clients])),
        "phases": {each["phase"]: each["seconds"] for each in results["timings"]},
    }


def _trade(settings: RunSettings, bundle: Bundle, output: Path) -> list[dict[str, Any]]:
    """Personalize under each pull and keep, from what one run published.

    The same split as in a run, in the order of the examples: means, no certificates.
    """
    scenario = load_scenario(settings.scenario.name, settings.scenario.options)
    model = bundle.task(bundle.load_base(str(output / "base-model"))).model()
    size, center = min(TRADED, settings.certificate.support_size), bundle.prior.center()
    served = recipe_for_attempt(bundle.recipes.recipe_for(size), 1)
    if not isinstance(served, PosteriorSplitRecipe) or served.refinement != "finetune":
        return []  # the head alone is trained, which has its own pull
    rows = []
    scored = partial(scorers, model, scenario, scenario.new_clients, margin_tolerance=1e-4)
    for pull in PULLS:
        tuned = {}
        for client, scorer in scored():
            examples = scenario.support_examples(client, size)
            choosing = examples.take(served.choosing(size).as_slice())
            tuned[client] = finetuned(
                scorer,
                choosing,
                center,
                steps=served.tuning_steps,
                learning_rate=served.learning_rate,
                pull=pull,
            )
        for keep in KEEPS:
            mixed = {name: keep * center + (1 - keep) * own for name, own in tuned.items()}
            elsewhere = errors_elsewhere(mixed, model, scenario)
            bounds, errors = [], []
            for client, scorer in scored():
                examples = scenario.support_examples(client, size)
                rest = examples.take(served.certifying(size).as_slice())
                wrong = int(scorer.score(mixed[client][None], rest).wrong.sum())
                bounds.append(served.bound(wrong, len(rest)))
                tests = scenario.test_examples(client)
                if tests is not None:
                    wrongs = scorer.score(mixed[client][None], tests).wrong
                    errors.append(float(wrongs.mean()))
            rows.append(
                {
                    "pull": pull,
                    "keep": keep,
                    "n": size,
                    "error": float(np.mean(errors)),
                    "elsewhere": float(np.mean(list(elsewhere.values()))),
                    "certificate": float(np.mean(bounds)),
                }
            )
    return rows


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of("launched", __doc__, seeds=SEEDS, quick=True, finished=True)
    parser.add_argument("--scenario", action="append", help="this one alone; may be repeated")
    parser.add_argument(
        "--method",
        action="append",
        choices=list(RUNS),
        help="this one alone; may be repeated",
    )
    return parsed(parser, arguments, free=["scenario", "method", "seeds"])


if __name__ == "__main__":
    main()
