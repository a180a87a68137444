"""Which parts of an adapter should a new client train? ``make bench-structure``.

One federation averages an adapter and the net of FedP2EFT. New clients then fine-tune the same
adapter under budgets of gates: the leading directions (plain), those that each finds alone
(BayesTune), those that the net says of its own inputs (FedP2EFT), and those that it says of the
average client, the same for all, which shows what reading inputs adds. Errors are of tests.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedcert.adapters import AdaptedModel, PrefixCache, Task
from fedcert.adapters.gates import SMALLEST_GATE
from fedcert.data import Examples
from fedcert.methods import FedP2EFT, State, Update
from fedcert.methods.federated import drawn_clients, round_seed
from fedcert.models import load_base_model
from fedcert.priors.base import FloatArray
from fedcert.runs.machine import describe_machine, versions
from fedcert.scenarios import Scenario, load_scenario
from fedcert.settings import RunSettings
from fedcert.simulations.benchmarks.federations import remembered
from fedcert.simulations.benchmarks.publishing import publish, say
from fedcert.simulations.benchmarks.structure_page import structure_page

__all__ = ["main"]

# Raise it when something else is measured for the same settings.
_VERSION = 1
_SUPPORT = 24
_BUDGETS = (0.2, 0.5, 1.0)
CASES: dict[str, dict[str, Any]] = {
    "topics": {
        "scenario.options.held_out": "half",
        "scenario.options.concentration": 0.5,
        "scenario.options.client_size": 70,
        "scenario.options.upstream": 32,
        "scenario.options.new": 24,
    },
    "digits": {"scenario.options.upstream": 32, "scenario.options.new": 24},
}
_COMMON: dict[str, Any] = {
    "method": "fedp2eft",
    "averaging.rounds": 10,
    "averaging.clients": 8,
    "averaging.steps": 10,
    "averaging.options.net_rounds": 16,
    "personal.steps": 30,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write ``results/structure.json``, and render ``docs/structure.md``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenarios", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    parts = [_case(name, seed) for seed in asked.seeds for name in asked.scenarios]
    record = {
        "command": "make bench-structure",
        "machine": describe_machine(),
        "versions": versions(),
        "seeds": asked.seeds,
        "settings": {name: _COMMON | CASES[name] for name in asked.scenarios},
        "support": _SUPPORT,
        "table": [row for part in parts for row in part["rows"]],
        "nets": [part["net"] for part in parts],
    }
    publish("structure", record, {"structure.md": structure_page(record)})


def _case(name: str, seed: int) -> dict[str, Any]:
    changes = {"scenario.name": name, "seed": seed, **_COMMON, **CASES[name]}
    identity = {"version": _VERSION, "changes": changes, "support": _SUPPORT}
    found: dict[str, Any] = remembered(
        "structure", identity, lambda: _measured(name, changes, seed)
    )
    return found


def _measured(name: str, changes: dict[str, Any], seed: int) -> dict[str, Any]:
    settings = RunSettings.read(None, [f"{key}={value}" for key, value in changes.items()])
    scenario = load_scenario(settings.scenario.name, settings.scenario.options)
    labels = scenario.labels
    base = load_base_model(
        str(scenario.base_model()),
        num_labels=len(labels),
        labels=labels,
        device=torch.device("cpu"),
    )
    method = settings.method_of().fitted_to(base)
    assert isinstance(method, FedP2EFT)
    task = Task(base, settings.space_of(base), scenario.inputs)
    model = task.model(prefix_cache=PrefixCache())
    state, net = _federated(method, model, scenario, seed)
    rows = [
        {"scenario": name, "seed": seed, "client": client, **row}
        for client in scenario.new_clients
        for row in _personal(method, model, scenario, client, state)
    ]
    return {"rows": rows, "net": {"scenario": name, "seed": seed, **net}}


def _federated(
    method: FedP2EFT, model: AdaptedModel, scenario: Scenario, seed: int
) -> tuple[State, dict[str, Any]]:
    """Go through all rounds; return the state and how far the net was from clients' gates."""
    state: State = method.start(model.space, seed=seed)
    own: dict[str, State] = {}
    distances = []
    for number in range(1, method.rounds + 1):
        names = drawn_clients(
            sorted(scenario.upstream_clients), method.federated.clients_per_round, seed, number
        )
        updates: list[Update] = []
        for client in names:
            updates.append(
                method.local(
                    state,
                    model,
                    scenario.training_examples(client),
                    number=number,
                    seed=round_seed(seed, number, client),
                    own=own.get(client, {}),
                )
            )
            own[client] = updates[-1].own
        state = method.merged(state, updates, number)
        told = [u.measured["distance-before"] for u in updates if u.measured]
        distances += [float(np.mean(told))] if told else []
        say(f"round {number} of {method.rounds}")
    return state, {"gates": list(method.gates(model.space).names), "distances": distances}


def _personal(
    method: FedP2EFT, model: AdaptedModel, scenario: Scenario, client: str, state: State
) -> Iterator[dict[str, Any]]:
    """Yield a new client's errors under each budget, by each way to find gates."""
    examples = scenario.support_examples(client, _SUPPORT)
    tests = scenario.test_examples(client)
    if tests is None or len(np.unique(examples.labels)) < 2:
        return
    prior = method.published(model.space, state)
    center, gates = prior.center(), method.gates(model.space)
    condition, net = method.read_off(prior, model, examples)
    shut = np.full(len(gates), SMALLEST_GATE)
    found = {
        "bayestune": method.own_gates(model, examples, center, shut, seed=0),
        "fedp2eft": method.said(net, condition),
        "average": method.said(net, np.zeros_like(condition)),
    }
    [shared] = _errors(model, center[None], tests)
    yield {"method": "shared", "budget": 0.0, "error": shared, "kept": []}
    for budget in _BUDGETS:
        asked = replace(method, budget=budget)
        kept = {"plain": gates.leading(asked.count(gates))}
        kept |= {way: gates.kept(values, asked.count(gates)) for way, values in found.items()}
        adapters = [asked.tuned(on, center, model, examples) for on in kept.values()]
        errors = _errors(model, np.stack(adapters), tests)
        for (way, on), error in zip(kept.items(), errors, strict=True):
            switched = np.flatnonzero(on).tolist()
            yield {"method": way, "budget": budget, "error": error, "kept": switched}
    say(f"new client {client}")


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
