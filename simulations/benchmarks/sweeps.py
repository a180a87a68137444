"""``make bench-sweeps``: what M, d, the pool's size and a shift do to certificates.

One thing varies at a time, from the same defaults, on `digits`, with n = 64 examples. Every
prior gets the same M, the same search and the same recipes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.certificates import Recipe
from fedcert.data.examples import Examples
from fedcert.machine import describe_machine, versions
from fedcert.planning import menu, recipe_name
from fedcert.planning.replays import ClientReplay
from fedcert.priors import PRIORS, Prior
from fedcert.priors.base import FloatArray
from fedcert.randomness import derive_seed, small_seed
from fedcert.search import BatchedScorer
from fedcert.simulations.benchmarks.federations import Federation, remembered
from fedcert.simulations.benchmarks.publishing import publish
from fedcert.simulations.benchmarks.sweeps_page import sweeps_page
from fedcert.threads import torch_threads

__all__ = ["main"]

# Raise it when a setting changes what it gives.
_VERSION = 1
SCENARIO, UPSTREAM, NEW = "digits", 512, 60
SEEDS, N, DELTA, CLIENTS = (0, 1, 2), 64, 0.05, 16
POOL, RANK, CANDIDATES = 128, 4, 1000
RECIPES = ("union", "hybrid 0.25", "posterior_split 0.5")
HELD_OUT = 0
"""The digit that no upstream client of the shifted federation calls its own."""


@dataclass(frozen=True)
class Setting:
    """One point of a sweep; the defaults are where all sweeps meet.

    Attributes
    ----------
    sweep : str
        What varies.
    value : str
        Its value here.
    prior : str
        Kind of prior.
    candidates : int
        M.
    rank : int
        Of the adapters.
    pool : int
        Adapters that the prior is fitted to.
    held_out : bool
        Whether the pool is of clients whose set does not have the held-out digit.
    having : bool, optional
        If given, only new clients whose set has that digit, or has not.
    """

    sweep: str
    value: str
    prior: str = "diffusion"
    candidates: int = CANDIDATES
    rank: int = RANK
    pool: int = POOL
    held_out: bool = False
    having: bool | None = None


def settings() -> Iterator[Setting]:
    """Yield all points of all sweeps."""
    for prior in PRIORS:
        for count in (100, 1000, 10_000):
            yield Setting("candidates", f"{count:,}", prior=prior, candidates=count)
    for rank in (2, 4, 8):
        yield Setting("rank", str(rank), rank=rank)
    for prior in ("diffusion", "gaussian"):
        for pool in (16, 32, 64, 128, 512):
            yield Setting("pool", str(pool), prior=prior, pool=pool)
    for prior in ("diffusion", "gaussian", "pool"):
        for held_out in (False, True):
            for having in (False, True):
                upstream = "never upstream" if held_out else "upstream too"
                client = "have it" if having else "do not"
                value = f"{upstream}; new clients {client}"
                yield Setting("shift", value, prior, held_out=held_out, having=having)


@lru_cache(maxsize=4)
def _federation(seed: int, rank: int) -> Federation:
    upstream = UPSTREAM if rank == RANK else POOL
    return Federation.of(
        SCENARIO, seed=seed, adapter={"rank": rank}, upstream=upstream, new=NEW
    )


class _Point:
    """One setting and seed."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self._setting, self._seed = setting, seed
        self.federation = _federation(seed, setting.rank)
        self._scenario: Any = self.federation.scenario

    @cached_property
    def prior(self) -> Prior:
        """Fitted to the setting's pool."""
        names = self._scenario.upstream_clients
        rows = [
            index
            for index, name in enumerate(names)
            if not (self._setting.held_out and HELD_OUT in self._scenario.mine(name))
        ]
        pool = self.federation.pool()[rows[: self._setting.pool]]
        return PRIORS[self._setting.prior].fit(pool, seed=small_seed("prior", self._seed))

    @property
    def clients(self) -> list[str]:
        """Return the new clients that are measured."""
        having = self._setting.having
        return [
            name
            for name in self._scenario.new_clients
            if having is None or (HELD_OUT in self._scenario.mine(name)) == having
        ][:CLIENTS]

    def rows(self) -> list[tuple[str, str, float, float]]:
        """Return client, recipe, certificate and true error."""
        identity = {
            "version": _VERSION, "prior": self.prior.digest, "n": N, "delta": DELTA,
            "scenario": self.federation.settings.scenario.model_dump(), "seed": self._seed,
            "space": self.federation.model.space.digest, "clients": self.clients,
            "candidates": self._setting.candidates, "recipes": RECIPES,
        }  # fmt: skip
        found = remembered("sweeps", identity, lambda: list(self._measured()))
        return [tuple(row) for row in found]

    def _measured(self) -> Iterator[tuple[str, str, float, float]]:
        spec, model = self._scenario.inputs, self.federation.model
        counted = BatchedScorer(model, spec, margin_tolerance=1e-4)
        true = BatchedScorer(model, spec, margin_tolerance=0.0)
        for client in self.clients:
            tests = self._scenario.test_examples(client)
            replays = ClientReplay(
                self.prior, counted, self._scenario.support_examples(client, N),
                seed=derive_seed("bench sweeps", self._seed),
                candidates=self._setting.candidates,
                tested=partial(_wrong, true, tests),
            )  # fmt: skip
            for name, recipe in _recipes(self._setting.candidates).items():
                outcome = replays.outcome(recipe, N)
                yield client, name, outcome.bound, outcome.risk


def _wrong(
    scorer: BatchedScorer, tests: Examples, adapters: FloatArray
) -> npt.NDArray[np.bool_]:
    return scorer.score(adapters, tests).wrong


def _recipes(candidates: int) -> dict[str, Recipe]:
    named = {recipe_name(recipe): recipe for recipe in menu(candidates=candidates, delta=DELTA)}
    return {name: named[name] for name in RECIPES}


def measure(
    points: Sequence[Setting], seeds: Sequence[int], say: Callable[[str], object]
) -> list[dict[str, Any]]:
    """Return a row per setting and recipe: means over clients and seeds."""
    table = []
    for setting in points:
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in RECIPES}
        for seed in seeds:
            for _, name, bound, risk in _Point(setting, seed).rows():
                found[name].append((bound, risk))
        say(f"{setting.sweep} {setting.value}, {setting.prior}")
        table += [_row(setting, name, np.array(values)) for name, values in found.items()]
    return table


def _row(setting: Setting, recipe: str, values: FloatArray) -> dict[str, Any]:
    bounds, risks = values.T
    return {
        "sweep": setting.sweep,
        "value": setting.value,
        "prior": setting.prior,
        "recipe": recipe,
        "certificate": float(bounds.mean()),
        "se": float(bounds.std(ddof=1) / len(bounds) ** 0.5),
        "error": float(risks.mean()),
        "clients": len(bounds),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and render; a part goes to a folder of its own."""
    parser = argparse.ArgumentParser(prog="sweeps", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--sweep", action="append", help="run this one alone")
    parser.add_argument("--output", type=Path, help="folder for the record and the page")
    options = parser.parse_args(arguments)
    part = options.sweep or options.seeds != list(SEEDS)
    if part and options.output is None:
        parser.error("a part of the benchmark does not go into docs/: name --output")
    points = [each for each in settings() if not options.sweep or each.sweep in options.sweep]
    if not points:
        parser.error(f"there is no sweep {options.sweep[0]!r}")
    with torch_threads(1):
        table = measure(points, options.seeds, lambda text: sys.stdout.write(f"{text}\n"))
    record = {
        "command": "make bench-sweeps",
        "scenario": SCENARIO,
        "seeds": options.seeds,
        "n": N,
        "delta": DELTA,
        "defaults": {"candidates": CANDIDATES, "rank": RANK, "pool": POOL},
        "held_out": HELD_OUT,
        "machine": describe_machine(),
        "versions": versions(),
        "missing": {},
        "table": table,
    }
    publish("sweeps", record, {"sweeps.md": sweeps_page(record)}, folder=options.output)


if __name__ == "__main__":
    main()
