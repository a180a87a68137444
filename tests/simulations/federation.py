"""A tiny federation to test with: settings, scripted clients, and a strategy on its own."""

from __future__ import annotations

import copy
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.serverapp.strategy import Strategy

from fedcert.adapters import AdapterSpace
from fedcert.arrays import FloatArray
from fedcert.bundles import Bundle
from fedcert.clients.client_app import make_client_app
from fedcert.fitting import fit_prior, make_bundle
from fedcert.messages import TRAIN
from fedcert.models import BaseModel, load_base_model
from fedcert.pool import Pool
from fedcert.protocol.authority import SeedAuthority
from fedcert.scenarios import load_scenario
from fedcert.settings import RunSettings
from fedcert.simulations.runners.flower_internals import LocalGrid
from fedcert.simulations.simulating import Simulation, simulate
from fedcert.strategies.pooled_prior import PooledPrior
from fedcert.strategies.serving import ServedRun, serve

SCENARIO = "tiny_scenario:Tiny"
UPSTREAM, NEW = 14, 2
CLIENTS = [f"tiny-{index:02d}" for index in range(UPSTREAM + NEW)]
"""Ids by partition; the last two are new clients."""

IMPORTABLE = Path(__file__).parent / "importable"

# Found here, by subprocesses, and by Ray's workers, as a user's own scenario is.
sys.path.append(str(IMPORTABLE))
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(IMPORTABLE), *filter(None, [os.environ.get("PYTHONPATH")])]
)

Handler = Callable[[Message], Message | RecordDict]
"""Gives the reply of one client: a message, or what an ordinary one holds."""


def tiny_settings(**changes: Any) -> RunSettings:
    """Return settings of a run that takes a second; ``training__steps=3`` changes one."""
    flat: dict[str, Any] = {
        "scenario.name": SCENARIO,
        "adapter.rank": 2,
        "training.steps": 10,
        "prior.kind": "gaussian",
        "certificate.candidates": 50,
        "certificate.support_size": 32,
        "server.min_pool": 10,
        "server.timeout": 60.0,
        "evaluation.candidates": 50,
        "evaluation.baselines": False,
    }
    flat |= {key.replace("__", "."): value for key, value in changes.items()}
    return RunSettings.from_flat(flat)


@cache
def finished_simulation(folder: Path) -> Simulation:
    """Run an ordinary simulation in this process; one run serves all tests that look at it.

    Parameters
    ----------
    folder : Path
        A folder of the whole test session.
    """
    settings = tiny_settings(
        prior__kind="diffusion",
        server__min_pool=11,
        evaluation__candidates=1000,
        evaluation__baselines=True,
    )
    return simulate(settings, output=folder / "run", runner="inprocess")


def tiny_base() -> BaseModel:
    """Load the scenario's base model, anew each time."""
    folder = load_scenario(SCENARIO, {}).base_model()
    return load_base_model(str(folder), num_labels=2)


# What honest clients answer to `TRAIN`, by settings and client: it does not change.
_UPLOADS: dict[tuple[str, int], RecordDict] = {}


@dataclass
class Scripted:
    """A ClientApp whose clients can be told to behave otherwise.

    Attributes
    ----------
    script : dict
        What a client does instead, by message type and client id.
    asked : list
        Message type and client id of every message, in order.
    """

    settings: RunSettings
    output: Path
    script: dict[tuple[str, str], Handler] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._honest = make_client_app(self.settings, self.output)

    def __call__(self, message: Message, context: Context) -> Message:
        kind, partition = (
            message.metadata.message_type,
            int(context.node_config["partition-id"]),
        )
        client = CLIENTS[partition]
        self.asked.append((kind, client))
        if handler := self.script.get((kind, client)):
            reply = handler(message)
            return reply if isinstance(reply, Message) else Message(reply, reply_to=message)
        return self.honest(message, context)

    def honest(self, message: Message, context: Context) -> Message:
        """Answer as fedcert's ClientApp does; uploads are computed once per test session."""
        if message.metadata.message_type != TRAIN:
            return self._honest(message, context)
        key = (self.settings.to_toml(), int(context.node_config["partition-id"]))
        if key not in _UPLOADS:
            _UPLOADS[key] = self._honest(message, context).content
        return Message(copy.deepcopy(_UPLOADS[key]), reply_to=message)

    def count(self) -> Counter[str]:
        """Count messages by type."""
        return Counter(kind for kind, _client in self.asked)


@dataclass
class Federation:
    """Server and clients in this thread, with everything that tests look into."""

    output: Path
    settings: RunSettings = field(default_factory=tiny_settings)
    nodes: int = UPSTREAM + NEW

    def __post_init__(self) -> None:
        self.clients = Scripted(self.settings, self.output)
        self.grid = LocalGrid(self.clients, nodes=self.nodes)
        self.base = tiny_base()
        adapter = self.settings.adapter
        self.space = AdapterSpace.of(
            self.base,
            rank=adapter.rank,
            last_layers=adapter.last_layers,
            projections=self.settings.projections(),
        )

    def on(self, kind: str, client: str, handler: Handler) -> None:
        """Let one client answer one type of message otherwise."""
        self.clients.script[kind, client] = handler

    def fit(self, pool: FloatArray) -> Bundle:
        scenario = load_scenario(SCENARIO, self.settings.scenario.options)
        return make_bundle(
            fit_prior(pool, settings=self.settings.prior, seed=self.settings.seed),
            base=self.base,
            space=self.space,
            inputs=scenario.inputs,
            labels=scenario.labels,
            settings=self.settings,
        )

    def strategy(self) -> PooledPrior:
        return PooledPrior(
            pool=self.pool(),
            space=self.space,
            fit=self.fit,
            authority=SeedAuthority.simulated(self.output / "protocol", self.settings.seed),
            training=self.settings.finetune_settings(),
            seed=self.settings.seed,
            clients_per_round=self.settings.server.clients_per_round,
            min_pool=self.settings.server.min_pool,
            timeout=self.settings.server.timeout,
        )

    def pool(self) -> Pool:
        return Pool(self.output / "pool", self.space)

    def start(self, *, observed: bool = True, timeout: float = 60.0) -> PooledPrior:
        """Run ``strategy.start``, or Flower's own, which knows the plain grid alone."""
        strategy = self.strategy()
        rounds = strategy.rounds_needed(self.grid)
        start = strategy.start if observed else partial(Strategy.start, strategy)
        start(self.grid, ArrayRecord(), num_rounds=rounds, timeout=timeout)
        return strategy

    def serve(self) -> ServedRun:
        """Run as fedcert's ServerApp does."""
        return serve(self.grid, self.settings, output=self.output)


class LossyGrid(LocalGrid):
    """Loses the replies of some clients, as a network does."""

    def __init__(self, client_app: Any, *, nodes: int, lost: set[tuple[str, str]]) -> None:
        super().__init__(client_app, nodes=nodes)
        self._lost = lost

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [
            reply
            for reply in super().pull_messages(message_ids)
            if (reply.metadata.message_type, CLIENTS[reply.metadata.src_node_id - 100])
            not in self._lost
        ]
