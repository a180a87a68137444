"""A server that collects uploads from clients of which some are hostile; no model needed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict

from fedcert.adapters.codec import encode
from fedcert.adapters.finetune import FinetuneSettings
from fedcert.adapters.space import AdapterSpace, HeadTensor, Target
from fedcert.messages import (
    HELLO,
    METRICS,
    PROTOCOL_VERSION,
    REPLY,
    UPSTREAM,
    HelloReply,
)
from fedcert.messages.flower import content
from fedcert.pool import Pool
from fedcert.protocol.authority import SeedAuthority
from fedcert.randomness import keyed_generator
from fedcert.runs.failures import failure_rows
from fedcert.simulations.runners.flower_internals import LocalGrid
from fedcert.strategies.pooled_prior import PooledPrior

__all__ = ["HONEST", "Collected", "Upload", "collect", "honest_vector", "make_space", "upload"]

HONEST = 8
"""Honest clients beside the hostile ones."""

Upload = Callable[[], RecordDict]
"""Makes what a client answers when it is asked for an adapter."""

_RANK, _WIDTH = 2, 8


def make_space(base: str = "a") -> AdapterSpace:
    """Make a space of 42 coordinates; another base model is another space."""
    names = ("encoder.query", "encoder.value")
    basis: dict[str, npt.NDArray[np.float32]] = {}
    for name in names:
        basis[f"{name}.up"] = np.eye(_WIDTH, _RANK, dtype=np.float32)
        basis[f"{name}.down"] = np.eye(_RANK, _WIDTH, dtype=np.float32)
    head = (HeadTensor("classifier.weight", (2, 16)), HeadTensor("classifier.bias", (2,)))
    targets = tuple(Target(name, _WIDTH, _WIDTH) for name in names)
    return AdapterSpace(base * 64, _RANK, "classifier", targets, head, basis)


def honest_vector(space: AdapterSpace, number: int) -> npt.NDArray[np.float64]:
    """Draw the adapter of a client."""
    return keyed_generator("honest uploads", number).standard_normal(space.dimension)


def upload(
    space: AdapterSpace,
    vector: npt.NDArray[np.float64],
    *,
    arrays: Mapping[str, Any] | None = None,
) -> RecordDict:
    """Pack an adapter as fedcert's clients do.

    Parameters
    ----------
    space : AdapterSpace
        Which the client says that it trained in.
    vector : numpy.ndarray
        Shape ``(d,)``.
    arrays : Mapping[str, Any], optional
        Arrays to send in the place of those of that name.
    """
    tensors = {**encode(space, vector), **(arrays or {})}
    records = content({"space": space.digest}, tensors, key=REPLY)
    records[METRICS] = MetricRecord({"num-examples": 40, "loss": 0.1})
    return records


@dataclass(frozen=True)
class Collected:
    """What a server has after a round.

    Attributes
    ----------
    pool : Pool
        The accepted adapters.
    refused : int
        Clients whose uploads were refused.
    causes : str
        Why, each cause once.
    """

    pool: Pool
    refused: int
    causes: str

    def told(self) -> str:
        """Say it in one line."""
        return f"{self.refused} refused: {self.causes}; {len(self.pool)} pooled"


def collect(folder: Path, hostile: Mapping[str, Upload]) -> Collected:
    """Run a round of training with `HONEST` honest clients and some hostile ones.

    Parameters
    ----------
    folder : Path
        Gets the pool and the server's log; a pool that is there goes on.
    hostile : Mapping[str, Upload]
        What these clients answer, by client id.
    """
    space = make_space()
    honest = [f"honest-{index}" for index in range(HONEST)]
    clients = sorted([*honest, *hostile])

    def app(message: Message, context: Context) -> Message:
        client = clients[int(context.node_config["partition-id"])]
        if message.metadata.message_type == HELLO:
            said = HelloReply(client, UPSTREAM, PROTOCOL_VERSION)
            return Message(content(said, key=REPLY), reply_to=message)
        if client in hostile:
            return Message(hostile[client](), reply_to=message)
        vector = honest_vector(space, honest.index(client))
        return Message(upload(space, vector), reply_to=message)

    def fit(_pool: npt.NDArray[np.float64]) -> NoReturn:
        raise RuntimeError("no prior is to be fitted here")

    pool = Pool(folder / "pool", space)
    strategy = PooledPrior(
        pool=pool,
        space=space,
        fit=fit,
        authority=SeedAuthority(folder / "server"),
        training=FinetuneSettings(),
        seed=0,
        clients_per_round=len(clients),
        min_pool=len(clients) + 1,
    )
    with _quiet():
        strategy.start(LocalGrid(app, nodes=len(clients)), ArrayRecord(), num_rounds=1)  # type: ignore[arg-type]
    causes = sorted({str(row["cause"]) for row in failure_rows(strategy.failures)})
    refused = {failure.client for failure in strategy.failures}
    return Collected(pool, len(refused), "; ".join(causes))


@contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
