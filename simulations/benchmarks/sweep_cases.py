"""The scenarios of ``make bench-sweeps``, and what a shifted federation of each never sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from fedcert.arrays import FloatArray
from fedcert.scenarios import Scenario, load_scenario
from fedcert.simulations.benchmarks.federations import Federation

__all__ = ["CASES", "Case", "Site"]


def _set_of(scenario: Any, client: str) -> set[object]:
    return set(scenario.mine(client))


def _language_of(_scenario: object, client: str) -> set[object]:
    return {client.partition("-")[0]}


@dataclass(frozen=True)
class Case:
    """A scenario as the sweeps use it.

    Attributes
    ----------
    scenario : str
        Its name.
    upstream : Mapping
        Options of the federation that the pool comes from.
    new : Mapping
        Options of the scenario whose new clients are measured, over `upstream`.
    traits : callable
        Returns what a client (of a scenario, by its name) has that can be held out.
    held_out : tuple
        What no upstream client of a shifted federation has.
    clients : int
        New clients that are measured per seed.
    seeds : int
        How many of the benchmark's seeds it runs on.
    """

    scenario: str
    upstream: Mapping[str, Any]
    new: Mapping[str, Any]
    traits: Callable[[Any, str], set[object]]
    held_out: tuple[object, ...]
    clients: int
    seeds: int

    def has(self, scenario: object, client: str) -> bool:
        """Return whether a client has any of what can be held out."""
        return not self.traits(scenario, client).isdisjoint(self.held_out)


CASES = {
    case.scenario: case
    for case in (
        Case(
            scenario="digits",
            upstream={"upstream": 512, "new": 60},
            new={},
            traits=_set_of,
            held_out=(0,),
            clients=16,
            seeds=3,
        ),
        Case(
            scenario="intents",
            upstream={"upstream": 512, "new": 60},
            new={},
            traits=_set_of,
            held_out=("banking",),
            clients=8,
            seeds=2,
        ),
        Case(
            scenario="topics",
            # One language has to be held out; a fourth one, so that the three can be in.
            upstream={"upstream": 0, "new": 1, "held_out": "xho"},
            new={"upstream": 100, "new": 20, "held_out": "ibo,pcm,sna"},
            traits=_language_of,
            held_out=("ibo", "pcm", "sna"),
            clients=12,
            seeds=1,
        ),
    )
}


@dataclass(frozen=True)
class Site:
    """A case with a seed: upstream clients, and the new ones that are measured.

    Attributes
    ----------
    case : Case
        The scenario.
    seed : int
        Seed of everything.
    adapter : Mapping
        Settings of the adapter, over the scenario's own.
    """

    case: Case
    seed: int
    adapter: Mapping[str, object] = field(default_factory=dict)

    @cached_property
    def federation(self) -> Federation:
        """Where the pool is trained."""
        return Federation.of(
            self.case.scenario, seed=self.seed, adapter=self.adapter, **self.case.upstream
        )

    @cached_property
    def scenario(self) -> Scenario:
        """Whose new clients are measured."""
        if not self.case.new:
            return self.federation.scenario
        options = {**self.case.upstream, **self.case.new, "seed": self.seed}
        return load_scenario(self.case.scenario, options)

    def new_clients(self, *, having: bool | None) -> list[str]:
        """Return the clients that are measured.

        Parameters
        ----------
        having : bool or None
            Only those that have, or have not, what can be held out; None for any.
        """
        scenario = self.scenario
        return [
            name
            for name in scenario.new_clients
            if having is None or self.case.has(scenario, name) == having
        ][: self.case.clients]

    def pool(self, size: int, *, held_out: bool) -> FloatArray:
        """Return the first adapters of clients that are not measured, shape ``(size, d)``.

        Parameters
        ----------
        size : int
            How many.
        held_out : bool
            Leave out the clients that have what is held out.
        """
        scenario = self.federation.scenario
        # Their own adapters would tell the prior of the examples that are to certify.
        measured = set(self.scenario.new_clients)
        rows = [
            index
            for index, name in enumerate(scenario.upstream_clients)
            if name not in measured and not (held_out and self.case.has(scenario, name))
        ]
        rows = rows[:size]
        return np.asarray(self.federation.pool(first=rows[-1] + 1)[rows])
