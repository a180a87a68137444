"""``make bench-certificates``: every recipe at every n beside the limit, coverage, mutants."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.adapters.constants import constant_adapters
from fedcert.adapters.finetune import finetune
from fedcert.arrays import FloatArray
from fedcert.certificates import PosteriorSplitRecipe, Recipe
from fedcert.data.examples import Examples
from fedcert.errors import DataError, SettingsError
from fedcert.evaluation.profiles import inputs_digest
from fedcert.planning import (
    ClientReplay,
    Plan,
    Replayed,
    menu,
    plan_client,
    recipe_name,
    worth_trying,
)
from fedcert.priors import DiffusionPrior, Prior
from fedcert.randomness import derive_seed, small_seed
from fedcert.runs.machine import describe_machine, versions
from fedcert.search import BatchedScorer
from fedcert.search.learning import has_linear_head
from fedcert.search.session import SupportSession
from fedcert.simulations.benchmarks import mutants
from fedcert.simulations.benchmarks.certificates_page import certificates_page
from fedcert.simulations.benchmarks.coverage import EPISODES, coverage
from fedcert.simulations.benchmarks.federations import Federation, remembered
from fedcert.simulations.benchmarks.publishing import kept_record, publish, say
from fedcert.simulations.benchmarks.recipes import limit
from fedcert.simulations.benchmarks.refinements import refinements

__all__ = ["documents", "main"]

# Raise it when a replay changes what it returns for the same recipe.
_VERSION = 2
# Raise it when planning clients replay in another way.
_REPLAYS_VERSION = 3
SIZES = (16, 32, 64, 128, 256)
CANDIDATES, DELTA = 1000, 0.05
POOL = 128
# How the posterior mean is made that is nowhere certified.
_REFINED = PosteriorSplitRecipe(candidates=CANDIDATES, delta=DELTA)


@dataclass(frozen=True)
class Case:
    """A scenario, and the options that it is built with."""

    scenario: str
    options: dict[str, Any]
    planning: dict[str, Any]
    """What planning clients' data differ in: they train no adapter and label more."""
    new: int
    """New clients per seed."""
    planners: int
    """Planning clients per seed."""
    seeds: tuple[int, ...] = (0, 1, 2)
    largest_posterior: int = 256
    """The limit's posterior mean learns from at most so many examples: texts take long."""


CASES = (
    Case("digits", {"upstream": 512, "new": 60}, {"training_size": 256}, 30, 16),
    Case(
        "intents",
        {"upstream": 512, "new": 60},
        {"training_size": 256},
        10,
        6,
        seeds=(0, 1),
        largest_posterior=64,
    ),
    Case(
        "politeness",
        {"upstream": 0, "new": 30},
        {"training_size": 0},
        10,
        8,
        seeds=(0,),
        largest_posterior=64,
    ),
)


@dataclass(frozen=True)
class Row:
    """One new client's outcome."""

    recipe: str
    n: int
    bound: float
    risk: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the asked parts, keep the others of the last record, and render the page."""
    options = _options(arguments)
    part = set(options.part) < set(_PARTS) or options.scenario
    record = kept_record("certificates") if part and options.output is None else {}
    record["command"] = "make bench-certificates"
    for name in options.part:
        record |= _PARTS[name](options, record)
    publish("certificates", record, documents(record), folder=options.output)


def documents(record: dict[str, Any]) -> dict[str, str]:
    """Return what is rendered from a record, by path below ``docs/``."""
    return {"certificates.md": certificates_page(record)}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench-certificates", description=__doc__)
    parser.add_argument("--part", nargs="*", choices=list(_PARTS), default=list(_PARTS))
    parser.add_argument(
        "--scenario",
        action="append",
        choices=[case.scenario for case in CASES],
        help="of the table, this one alone; may be repeated",
    )
    parser.add_argument("--episodes", type=int, default=EPISODES)
    parser.add_argument("--output", type=Path, help="a folder for a part of it")
    return parser.parse_args(arguments)


def _measured(options: argparse.Namespace, last: Mapping[str, Any]) -> dict[str, Any]:
    """Return what clients are certified by each recipe; of others, what was known."""
    asked = options.scenario or [case.scenario for case in CASES]
    missing, table = {}, []
    for case in CASES:
        if case.scenario not in asked:
            table += [row for row in last.get("table", []) if row["scenario"] == case.scenario]
            continue
        try:
            table += _table(case)
        except SettingsError as error:  # data or base model are not on this machine
            missing[case.scenario] = str(error)
            say(f"left out: {error}")
    return {
        # The other parts are counts, which follow from seeds.
        "machine": describe_machine(),
        "versions": versions(),
        "seeds": {case.scenario: list(case.seeds) for case in CASES},
        "candidates": CANDIDATES,
        "delta": DELTA,
        "missing": missing,
        "table": table,
    }


_PARTS: dict[str, Callable[[argparse.Namespace, Mapping[str, Any]], dict[str, Any]]] = {
    "table": _measured,
    "refinements": lambda _options, _last: {"refinements": refinements()},
    "coverage": lambda options, _last: {"coverage": list(coverage(options.episodes))},
    "mutants": lambda options, _last: {
        "mutants": list(mutants.rows("certificates", options.episodes))
    },
}


def _table(case: Case) -> list[dict[str, Any]]:
    rows: list[Row] = []
    best: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    labels = 0
    for seed in case.seeds:
        say(f"{case.scenario}, seed {seed}")
        bench = _Bench(case, seed)
        labels = len(bench.scenario.labels)
        plan = bench.plan()
        for client in bench.scenario.new_clients[: case.new]:
            found = remembered(
                "outcomes", bench.identity(client), partial(bench.measure, client)
            )
            certified = [Row(*row) for row in found["certified"]]
            rows += certified + _planned(plan, certified)
            for n, method, risk in found["uncertified"]:
                best[n][method].append(risk)
            say(".", end="")
        say("")
    chance = 1 - 1 / labels
    return [_summary(case.scenario, key, group, best[key[1]], chance)
            for key, group in _grouped(rows).items()]  # fmt: skip


def _planned(plan: Plan, certified: Sequence[Row]) -> list[Row]:
    """Return the rows of the recipe that is planned for their n, under another name.

    A recipe that is planned for a smaller n, and not worth trying at this one, has no row.
    """
    return [
        replace(row, recipe="planned")
        for row in certified
        if row.recipe == recipe_name(plan.expected(row.n).recipe)
    ]


def _grouped(rows: Sequence[Row]) -> dict[tuple[str, int], list[Row]]:
    groups: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.recipe, row.n].append(row)
    return groups


def _summary(
    scenario: str,
    key: tuple[str, int],
    rows: list[Row],
    best: dict[str, list[float]],
    chance: float,
) -> dict[str, Any]:
    """Average over clients and seeds; the limit is that of the best method of a fixed list."""
    method = min(best, key=lambda name: float(np.mean(best[name])))
    bounds = np.array([row.bound for row in rows])
    return {
        "scenario": scenario,
        "recipe": key[0],
        "n": key[1],
        "mean_certificate": float(bounds.mean()),
        "mean_error": float(np.mean([row.risk for row in rows])),
        "nonvacuous": float((bounds < chance).mean()),
        "limit": limit(np.array(best[method]), key[1], DELTA),
        "limit_method": method,
        "se": float(bounds.std(ddof=1) / len(bounds) ** 0.5),
        "clients": len(bounds),
    }


class _Bench:
    """One scenario and seed: prior, plan and new clients."""

    def __init__(self, case: Case, seed: int) -> None:
        self._seed, self._planning_options = seed, case.planning
        self._largest_posterior = case.largest_posterior
        self.federation = Federation.of(case.scenario, seed=seed, **case.options)
        self._planning = Federation.of(
            case.scenario, seed=seed, **case.options, **case.planning
        ).scenario
        self.scenario = self.federation.scenario
        pool = self.federation.pool()
        count = min(POOL, len(pool) - case.planners)
        # Planning clients come after those whose adapters the prior is fitted to.
        self._planners = self.scenario.upstream_clients[count : count + case.planners]
        self.prior: Prior = DiffusionPrior.fit(pool[:count], seed=small_seed("prior", seed))
        self._scorer = BatchedScorer(self.federation.model, margin_tolerance=1e-4)
        # All clients have the same candidates, and many the same test inputs.
        self._predicted: dict[str, npt.NDArray[np.int64]] = {}
        self._true = BatchedScorer(self.federation.model, margin_tolerance=0.0)
        self._constants = constant_adapters(
            self.federation.model.space, len(self.scenario.labels)
        )

    def plan(self) -> Plan:
        """Plan on clients that neither trained for the prior nor are certified."""
        replays = []
        for client in self._planners:
            examples = self._planning.training_examples(client)
            sizes = [n for n in SIZES if n <= len(examples)]
            play = partial(self._planned, client, examples, sizes)
            identity = self.identity(client) | {"replays": _REPLAYS_VERSION}
            rows = remembered("plans", identity, play)
            replays.append([Replayed(*row) for row in rows])
        return Plan.of(self._menu, replays)

    def _planned(
        self, client: str, examples: Examples, sizes: Sequence[int]
    ) -> list[tuple[Any, ...]]:
        rows = plan_client(self._replay(client, examples), self._menu, sizes)
        return [astuple(row) for row in rows]

    @cached_property
    def _menu(self) -> tuple[Recipe, ...]:
        """What a planner of this task chooses among."""
        return menu(
            candidates=CANDIDATES,
            delta=DELTA,
            constants=len(self._constants),
            local_head=has_linear_head(self.federation.model.space),
            training=self.federation.settings.finetune_settings(),
        )

    @cached_property
    def recipes(self) -> dict[str, Recipe]:
        """The recipes of the table, by name."""
        terms: dict[str, Any] = {"candidates": CANDIDATES, "delta": DELTA}
        shares = [("split", 0.25), ("split", 0.5)]
        splits = [
            Recipe.from_config({"kind": k, **terms, "choose_fraction": s}) for k, s in shares
        ]
        union, *others = self._menu
        named = {recipe_name(recipe): recipe for recipe in (union, *splits, *others)}
        for kind in ("weighted_union", "gibbs", "vote", "steel"):
            named[kind] = Recipe.from_config({"kind": kind, **terms})
        return named

    def identity(self, client: str) -> dict[str, Any]:
        """Return what a client's figures follow from."""
        return {
            "client": client,
            "prior": self.prior.digest,
            "scenario": self.federation.settings.scenario.model_dump(),
            "planning": self._planning_options,
            "recipes": [recipe.to_config() for recipe in self.recipes.values()],
            "sizes": list(SIZES),
            "version": _VERSION,
        }

    def measure(self, client: str) -> dict[str, Any]:
        """Return a new client's outcomes with each recipe, and without certificates."""
        return {
            "certified": [astuple(row) for row in self.outcomes(client)],
            "uncertified": list(self.uncertified(client)),
        }

    def outcomes(self, client: str) -> Iterator[Row]:
        """Yield what each recipe certifies for a new client."""
        support = self._support(client)
        replays = self._replay(client, support, tested=partial(self._wrong, client))
        for n in (n for n in SIZES if n <= len(support)):
            for name, recipe in self.recipes.items():
                if worth_trying(recipe, n):
                    outcome = replays.outcome(recipe, n)
                    yield Row(name, n, outcome.bound, outcome.risk)

    def uncertified(self, client: str) -> Iterator[tuple[int, str, float]]:
        """Yield true errors of methods that learn from all n: candidates for the limit."""
        support = self._support(client)
        for n in (n for n in SIZES if n <= len(support)):
            part = support.take(slice(0, n))
            if n <= self._largest_posterior:
                means = _REFINED.refine(
                    SupportSession(
                        _REFINED, self.prior, self._scorer, part, seed=self._candidates
                    )
                )
                yield n, "posterior mean", float(self._risks(client, means)[0])
            if len(np.unique(part.labels)) > 1:
                tuned = self._tuned(part)
                yield n, "local LoRA", float(self._risks(client, tuned[None])[0])

    def _tuned(self, examples: Examples) -> FloatArray:
        result = finetune(
            self.federation.model,
            examples,
            seed=small_seed("bench", self._seed),
            settings=self.federation.settings.finetune_settings(),
        )
        return result.vector.astype(np.float64)

    @property
    def _candidates(self) -> str:
        # One for all clients: each certificate is valid by itself.
        return derive_seed("bench certificates", self._seed)

    def _support(self, client: str) -> Examples:
        for n in reversed(SIZES):
            try:
                return self.scenario.support_examples(client, n)
            except DataError:
                continue
        raise SettingsError(f"{self.scenario.name}: {client} has too few examples")

    def _replay(self, client: str, examples: Examples, **kwargs: Any) -> ClientReplay:
        return ClientReplay(
            self.prior,
            self._scorer,
            examples,
            seed=self._candidates,
            candidates=CANDIDATES,
            constants=self._constants,
            **kwargs,
        )

    def _risks(self, client: str, adapters: FloatArray) -> FloatArray:
        return np.asarray(self._wrong(client, adapters).mean(axis=1))

    def _wrong(self, client: str, adapters: FloatArray) -> npt.NDArray[np.bool_]:
        test = self.scenario.test_examples(client)
        assert test is not None
        if len(adapters) < CANDIDATES:
            return self._true.score(adapters, test).wrong
        key = inputs_digest(test.inputs)
        if key not in self._predicted:
            self._predicted = {key: self._true.predict(adapters, test.inputs)}
        return np.asarray(self._predicted[key] != test.labels)


if __name__ == "__main__":
    main()
