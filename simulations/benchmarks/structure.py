"""Which parts of an adapter should a new client train? ``make bench-structure``.

One federation averages an adapter and the net of FedP2EFT. New clients then fine-tune the same
adapter under budgets of gates: the leading directions (plain), those that each finds alone
(BayesTune), those that the net says of its own inputs (FedP2EFT), and those that it says of the
average client, the same for all, which shows what reading inputs adds. Each way gets as many
steps in all: those in which gates are found count. Its learning rate is the best of three on
upstream clients that no round draws. Errors are of tests. What is measured is kept in the
cache after each round and each client, so that a benchmark which stopped goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedcert.adapters import AdaptedModel, PrefixCache, Task
from fedcert.adapters.gates import FIRST_GATE
from fedcert.arrays import FloatArray
from fedcert.data import Examples
from fedcert.methods import FedP2EFT, State
from fedcert.methods.federated import drawn_clients, round_seed
from fedcert.models import load_base_model
from fedcert.priors import PointPrior
from fedcert.runs.machine import describe_machine, versions
from fedcert.scenarios import load_scenario
from fedcert.settings import RunSettings
from fedcert.simulations.benchmarks.federations import remembered
from fedcert.simulations.benchmarks.publishing import publish, say
from fedcert.simulations.benchmarks.structure_page import structure_page
from fedcert.threads import torch_threads

__all__ = ["documents", "main"]

# Raise it when something else is measured for the same settings.
_VERSION = 2
_SUPPORT = 24
_RATES = (0.01, 0.03, 0.1)
# Every fourth upstream client is drawn in no round: it tunes.
_TUNING = slice(0, None, 4)
_WAYS = ("plain", "bayestune", "fedp2eft", "average")
_BUDGETS = (0.2, 0.5, 1.0)
CASES: dict[str, dict[str, Any]] = {
    "topics": {
        "scenario.options.held_out": "half",
        "scenario.options.concentration": 0.5,
        "scenario.options.client_size": 70,
        "scenario.options.upstream": 32,
        "scenario.options.new": 16,
        "averaging.clients": 6,
        "averaging.options.net_rounds": 10,
    },
    "digits": {"scenario.options.upstream": 32, "scenario.options.new": 24},
}
# Those of `digits`, where inputs say nothing of what a client wants, are a control.
_SEEDS = {"topics": (0, 1, 2), "digits": (0,)}
_COMMON: dict[str, Any] = {
    "method": "fedp2eft",
    "averaging.rounds": 8,
    "averaging.clients": 8,
    "averaging.steps": 10,
    "averaging.options.net_rounds": 16,
    "averaging.options.gate_steps": 10,
    "personal.steps": 30,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write ``results/structure.json``, and render ``docs/structure.md``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenarios", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--seeds", nargs="*", type=int, help="the same of all scenarios")
    asked = parser.parse_args(arguments)
    seeds = {name: asked.seeds or list(_SEEDS.get(name, (0,))) for name in asked.scenarios}
    with torch_threads(1):
        parts = [_case(name, seed) for name in asked.scenarios for seed in seeds[name]]
    record = {
        "command": "make bench-structure",
        "machine": describe_machine(),
        "versions": versions(),
        "seeds": seeds,
        "settings": {name: _COMMON | CASES[name] for name in asked.scenarios},
        "support": _SUPPORT,
        "missing": {name: "not measured here" for name in CASES if name not in asked.scenarios},
        "table": [row for part in parts for row in part["rows"]],
        "nets": [part["net"] for part in parts],
    }
    publish("structure", record, documents(record))


def documents(record: dict[str, Any]) -> dict[str, str]:
    """Return what is rendered from a record, by path below ``docs/``."""
    return {"structure.md": structure_page(record)}


def _case(name: str, seed: int) -> dict[str, Any]:
    changes = {"scenario.name": name, "seed": seed, **_COMMON, **CASES[name]}
    settings = RunSettings.read(None, [f"{key}={value}" for key, value in changes.items()])
    ground = _Ground(
        {"version": _VERSION, "changes": changes, "support": _SUPPORT}, settings, seed
    )
    scenario, own = ground.scenario, {"scenario": name, "seed": seed}
    rates = {way: ground.rate_of(way) for way in _WAYS}
    rows = [
        own | {"client": client} | row
        for client in scenario.new_clients
        for row in ground.personal(client, rates)
    ]
    return {"rows": rows, "net": own | {"rates": rates} | ground.net()}


class _Ground:
    """One federation, and what its clients make of it; whatever was measured is remembered."""

    def __init__(self, identity: dict[str, Any], settings: RunSettings, seed: int) -> None:
        self._identity, self._seed = identity, seed
        self.scenario = load_scenario(settings.scenario.name, settings.scenario.options)
        labels = self.scenario.labels
        base = load_base_model(
            str(self.scenario.base_model()),
            num_labels=len(labels),
            labels=labels,
            device=torch.device("cpu"),
        )
        method = settings.method_of().fitted_to(base)
        assert isinstance(method, FedP2EFT)
        task = Task(base, settings.space_of(base), self.scenario.inputs)
        self._method, self._model = method, task.model(prefix_cache=PrefixCache())

    def _remembered(self, part: str, compute: Callable[[], Any]) -> Any:
        return remembered("structure", self._identity | {"part": part}, compute)

    @cached_property
    def _tuning(self) -> list[str]:
        return sorted(self.scenario.upstream_clients)[_TUNING]

    @cached_property
    def _federated(self) -> dict[str, Any]:
        """Go through all rounds: the state, and how far the net was from clients' gates."""
        method = self._method
        known: dict[str, Any] = {
            "state": _listed(method.start(self._model.space, seed=self._seed)),
            "own": {},
            "distances": [],
        }
        for number in range(1, method.rounds + 1):
            known = self._remembered(f"round {number}", partial(self._round, number, known))
        return known

    def net(self) -> dict[str, Any]:
        """Return the gates' names, and how the net's distance from clients' gates went."""
        names = list(self._method.gates(self._model.space).names)
        return {"gates": names, "distances": self._federated["distances"]}

    @cached_property
    def _prior(self) -> PointPrior:
        return self._method.published(self._model.space, _arrays(self._federated["state"]))

    def _round(self, number: int, known: dict[str, Any]) -> dict[str, Any]:
        """Return what there is after a round."""
        method, state = self._method, _arrays(known["state"])
        there = sorted(set(self.scenario.upstream_clients) - set(self._tuning))
        names = drawn_clients(there, method.federated.clients_per_round, self._seed, number)
        updates = [
            method.local(
                state,
                self._model,
                self.scenario.training_examples(client),
                number=number,
                seed=round_seed(self._seed, number, client),
                own=_arrays(known["own"].get(client, {})),
            )
            for client in names
        ]
        told = [u.measured["distance-before"] for u in updates if u.measured]
        say(f"round {number} of {method.rounds}")
        kept = {c: _listed(u.own) for c, u in zip(names, updates, strict=True) if u.own}
        return {
            "state": _listed(method.merged(state, updates, number)),
            "own": known["own"] | kept,
            "distances": known["distances"] + ([float(np.mean(told))] if told else []),
        }

    def rate_of(self, way: str) -> float:
        """Return the learning rate with the lowest mean error on the clients that tune."""
        means = []
        for rate in _RATES:
            errors = [self._tuned(client, way, rate) for client in self._tuning]
            known = [error for error in errors if error is not None]
            means.append(float(np.mean(known)) if known else 1.0)
        return _RATES[int(np.argmin(means))]

    def _tuned(self, client: str, way: str, rate: float) -> float | None:
        """Return the error at the smallest budget on the examples that are not learned from."""

        def compute() -> float | None:
            whole = self.scenario.training_examples(client)
            examples, rest = whole.take(slice(_SUPPORT)), whole.take(slice(_SUPPORT, None))
            if len(np.unique(examples.labels)) < 2 or not len(rest):
                return None
            on = self._kept(way, client, examples, _BUDGETS[0])
            [error] = _errors(self._model, self._adapter(way, on, rate, examples)[None], rest)
            return error

        found: float | None = self._remembered(f"{way} {rate} {client}", compute)
        return found

    def personal(self, client: str, rates: dict[str, float]) -> list[dict[str, Any]]:
        """Return a new client's errors under each budget, by each way to find gates."""

        def compute() -> list[dict[str, Any]]:
            return list(self._personal(client, rates))

        found: list[dict[str, Any]] = self._remembered(f"{client} {rates}", compute)
        return found

    def _personal(self, client: str, rates: dict[str, float]) -> Iterator[dict[str, Any]]:
        examples = self.scenario.support_examples(client, _SUPPORT)
        tests = self.scenario.test_examples(client)
        if tests is None or len(np.unique(examples.labels)) < 2:
            return
        [shared] = _errors(self._model, self._prior.center()[None], tests)
        yield {"method": "shared", "budget": 0.0, "error": shared, "kept": []}
        known: dict[tuple[object, ...], float] = {}  # with all gates on, ways are the same
        for way in _WAYS:
            for budget in _BUDGETS:
                on = self._kept(way, client, examples, budget)
                key = (tuple(on > 0), rates[way], self._steps(way))
                if key not in known:
                    adapter = self._adapter(way, on, rates[way], examples)
                    [known[key]] = _errors(self._model, adapter[None], tests)
                kept = np.flatnonzero(on).tolist()
                yield {"method": way, "budget": budget, "error": known[key], "kept": kept}
        say(f"new client {client}")

    def _kept(self, way: str, client: str, examples: Examples, budget: float) -> FloatArray:
        """Return the gates that a budget keeps."""
        method = self._method
        gates = method.gates(self._model.space)
        count = replace(method, budget=budget).count(gates)
        if way == "plain":
            return gates.leading(count)
        values = self._remembered(
            f"gates, {way}, {client}", lambda: self._values(way, examples).tolist()
        )
        return gates.kept(np.array(values), count)

    def _values(self, way: str, examples: Examples) -> FloatArray:
        """Return a client's gates, on its own or by the net."""
        method, model = self._method, self._model
        if way == "bayestune":
            first = np.full(len(method.gates(model.space)), FIRST_GATE)
            return method.own_gates(model, examples, self._prior.center(), first, seed=0)
        condition, net = method.read_off(self._prior, model, examples)
        return method.said(net, condition * (way == "fedp2eft"))

    def _adapter(self, way: str, on: FloatArray, rate: float, examples: Examples) -> FloatArray:
        """Return a client's adapter under gates."""
        personal = self._method.personal
        settings = replace(personal.settings, steps=self._steps(way), learning_rate=rate)
        method = replace(self._method, personal=replace(personal, settings=settings))
        return method.tuned(on, self._prior.center(), self._model, examples)

    def _steps(self, way: str) -> int:
        """Return the steps of fine-tuning: who finds gates alone has taken some already."""
        spent = self._method.gate_steps if way == "bayestune" else 0
        return self._method.personal.settings.steps - spent


def _listed(state: State) -> dict[str, Any]:
    return {name: array.tolist() for name, array in state.items()}


def _arrays(lists: dict[str, Any]) -> dict[str, npt.NDArray[np.float32]]:
    return {name: np.array(values, dtype=np.float32) for name, values in lists.items()}


def _errors(
    model: AdaptedModel, adapters: FloatArray, tests: Examples
) -> npt.NDArray[np.float64] | list[float]:
    """Return the share of wrong labels of each adapter."""
    labels = torch.from_numpy(tests.labels)
    with torch.no_grad():
        prepared = model.prepare(model.task.encode(tests))
        logits = [
            model.logits(prepared, torch.from_numpy(each).float()[None])[0] for each in adapters
        ]
    return [float((each.argmax(-1) != labels).float().mean()) for each in logits]


if __name__ == "__main__":
    main()
