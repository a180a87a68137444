"""Waiting for the nodes: Flower starts the ServerApp before them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self

from flwr.serverapp import Grid

from fedcert.errors import RunError, SettingsError
from fedcert.runs.events import Events
from fedcert.scenarios import Scenario
from fedcert.settings import RunSettings

__all__ = ["Registration"]

_PAUSE = 0.2
_WAITING = "wait for nodes"


@dataclass(frozen=True)
class Registration:
    """How many nodes a run waits for, and how long.

    Attributes
    ----------
    nodes : int
        How many.
    patience : float
        Seconds, after which it goes on with those that are there.
    needed : int
        Adapters that a prior needs.
    gathers : bool (default: False)
        Whether a run of too few nodes is worth its while, since others follow in later ones:
        so it is where a setting says how many nodes to wait for.
    """

    nodes: int
    patience: float
    needed: int
    gathers: bool = False

    @classmethod
    def of(cls, settings: RunSettings, scenario: Scenario) -> Self:
        """Return what a run's settings ask for; nodes that nobody knows may all be upstream."""
        upstream, expected = len(scenario.upstream_clients), settings.server.nodes
        return cls(
            nodes=expected or upstream + len(scenario.new_clients),
            patience=settings.server.registration_timeout,
            needed=settings.fewest_adapters(upstream or expected),
            gathers=expected > 0,
        )

    def check(self, shortage: str, events: Events) -> None:
        """Raise `RunError` if there are too few clients, or only say so where runs gather them.

        Parameters
        ----------
        shortage : str
            What is lacking; nothing if nothing is.
        events : Events
            Told, if the run goes on.
        """
        if shortage and not self.gathers:
            raise RunError(shortage)
        if shortage:
            events.note(f"WARNING: this run can only add to the pool: {shortage}")

    def wait(self, grid: Grid, events: Events, *, pooled: int, must_fit: bool) -> None:
        """Wait until the nodes have registered, or patience is over.

        Parameters
        ----------
        grid : Grid
            Where they register.
        events : Events
            Told how many are there.
        pooled : int
            Adapters that are in the pool already.
        must_fit : bool
            Whether there is no bundle yet that could serve.

        Raises
        ------
        RunError
            If none is there, or too few to fill the pool, whatever they do.
        SettingsError
            If nobody says how many to wait for.
        """
        if self.nodes == 0:
            raise SettingsError(
                "the scenario knows no clients: set server.nodes to the number of nodes to "
                "wait for"
            )
        deadline, before = time.monotonic() + self.patience, -1
        while (
            count := len(list(grid.get_node_ids()))
        ) < self.nodes and time.monotonic() <= deadline:
            if before < 0:
                events.phase(_WAITING, self.nodes)
            if count != before:
                events.reach(count)
                before = count
            time.sleep(_PAUSE)
        if count == 0:
            raise RunError(f"no node registered within {self.patience:g} s")
        if count < self.nodes:
            events.note(
                f"WARNING: {count} of {self.nodes} nodes are there after {self.patience:g} s; "
                "the run goes on without the others"
            )
        if must_fit and count < self.nodes and count + pooled < self.needed:
            raise RunError(self._too_few(count, pooled))

    def _too_few(self, there: int, pooled: int) -> str:
        return (
            f"{there} of {self.nodes} clients are there, and {pooled} adapters in the "
            f"pool: too few for the {self.needed} that a prior needs. Set num-supernodes in a "
            f"simulation (flwr run ... --federation-config 'num-supernodes={self.nodes}'); in "
            "a deployment start more nodes, or wait longer for them "
            "(server.registration-timeout)"
        )
