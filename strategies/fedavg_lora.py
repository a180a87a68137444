"""The strategy `FedAvgLora`: Flower's FedAvg on adapters, with certificates at the end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result

from fedcert.adapters.codec import decode
from fedcert.adapters.space import AdapterSpace
from fedcert.baselines.wire import BASIS, WORDS, shared_tensors, with_zero_head
from fedcert.canonical import canonical_json
from fedcert.errors import FedcertError, RunError
from fedcert.messages import ARRAYS, NEW, UPSTREAM
from fedcert.messages.flower import arrays_of, content, failure_cause
from fedcert.methods.federated import FederatedSettings, drawn_clients
from fedcert.methods.local_training import PersonalTraining
from fedcert.pool.validation import largest_upload
from fedcert.priors.base import FloatArray
from fedcert.strategies.observed_grid import ObservedGrid
from fedcert.strategies.roster import Roster, call_roll

__all__ = ["FedAvgLora"]

# Nobody's examples count more than this, whatever a client says.
_MOST_EXAMPLES = 10**6


class FedAvgLora(FedAvg):
    """Trains one adapter for all upstream clients by Flower's own federated averaging.

    Sampling follows a seed and stable client ids. Each upload is checked before it is
    averaged. After the last round every new client receives the adapter, makes it its own
    if `personal` says so, and answers with the certified bound; its clients run
    `fedcert.clients.baselines`.

    Parameters
    ----------
    space : AdapterSpace
        The coordinates, sent to the clients along with their basis.
    federated : FederatedSettings
        Rounds, clients per round, and local training.
    seed : int
        Of the draws of clients and of their batches.
    personal : PersonalTraining, optional
        How new clients go on from the global adapter, on half of their examples, the other
        half certifying; without it all examples certify the global adapter.
    timeout : float (default: 600)
        Seconds to wait for nodes to say who they are.

    Attributes
    ----------
    certificates : dict
        Each new client's bound, by client id.
    failures : dict
        Cause by client id; a client that failed is asked no more.
    """

    def __init__(
        self,
        *,
        space: AdapterSpace,
        federated: FederatedSettings,
        seed: int,
        personal: PersonalTraining | None = None,
        timeout: float = 600.0,
    ) -> None:
        super().__init__(min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1)
        self._space, self._federated, self._seed = space, federated, seed
        self._personal, self._timeout = personal, timeout
        self._roster: Roster | None = None
        self._sent: list[Message] = []
        self.certificates: dict[str, float] = {}
        self.failures: dict[str, str] = {}

    def run(self, grid: Grid, *, timeout: float = 3600.0) -> Result:
        """Start from the zero adapter and run all rounds.

        Raises
        ------
        RunError
            If no client could train in some round.
        """
        start = shared_tensors(self._space, np.zeros(self._space.dimension), self._federated)
        return self.start(
            grid,
            _record(start),
            num_rounds=self._federated.rounds,
            timeout=timeout,
        )

    def adapter(self, arrays: ArrayRecord) -> FloatArray:
        """Return the adapter that a run ended with, float64 of shape ``(d,)``."""
        tensors = {name: array.numpy() for name, array in arrays.items()}
        return self._decoded(tensors)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the adapter to the clients drawn for this round."""
        roster = self._called(grid)
        there = [name for name in roster.clients(UPSTREAM) if name not in self.failures]
        names = drawn_clients(
            there, self._federated.clients_per_round, self._seed, server_round
        )
        if not names:
            raise RunError(f"no upstream client is left to train: {self._causes()}")
        self._configure(config)
        part = _part(grid, [roster.nodes[name] for name in names])
        return self._with_basis(super().configure_train(server_round, arrays, config, part))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average what is an adapter of this space; note who sent something else."""
        good = self._checked(replies, self._check_upload)
        if not good:
            raise RunError(f"no client could train in round {server_round}: {self._causes()}")
        return super().aggregate_train(server_round, good)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """After the last round, send the adapter to the new clients."""
        roster = self._called(grid)
        names = roster.clients(NEW)
        if server_round < self._federated.rounds or not names:
            return []
        self._configure(config)
        part = _part(grid, [roster.nodes[name] for name in names])
        return self._with_basis(super().configure_evaluate(server_round, arrays, config, part))

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Keep each new client's bound."""
        good = self._checked(replies, _check_certificate)
        for reply in good:
            metrics = next(iter(reply.content.metric_records.values()))
            self.certificates[self._client(reply)] = float(_number(metrics, "certificate"))
        return super().aggregate_evaluate(server_round, good) if good else None

    def _configure(self, config: ConfigRecord) -> None:
        words = {
            "space": self._space.to_config(),
            "federated": self._federated.to_config(),
            "personal": None if self._personal is None else asdict(self._personal),
            "seed": self._seed,
        }
        config[WORDS] = canonical_json(words).decode()

    def _with_basis(self, messages: Iterable[Message]) -> list[Message]:
        sent = list(messages)
        basis = content({}, dict(self._space.basis))[ARRAYS]
        for message in sent:
            message.content[BASIS] = basis
        self._sent = sent
        return sent

    def _called(self, grid: Grid) -> Roster:
        """Return who is there, asking all nodes once."""
        if self._roster is None:
            self._roster = call_roll(grid, grid.get_node_ids(), timeout=self._timeout)
            for node, cause in self._roster.failures.items():
                self.failures[f"node {node}"] = cause
        return self._roster

    def _client(self, reply: Message) -> str:
        assert self._roster is not None  # nobody answers before being asked
        nodes = {node: client for client, node in self._roster.nodes.items()}
        # Not by the sender: an error may come from the SuperLink in a node's place.
        asked = {m.metadata.message_id: m.metadata.dst_node_id for m in self._sent}
        return nodes[asked[reply.metadata.reply_to_message_id]]

    def _checked(self, replies: Iterable[Message], check: Any) -> list[Message]:
        """Return the good replies, in the order of their clients: a sum depends on it."""
        good = []
        for reply in replies:
            client = self._client(reply)
            try:
                if reply.has_error():
                    raise FedcertError(reply.error.reason or f"code {reply.error.code}")
                check(reply)
            except FedcertError as error:
                self.failures[client] = failure_cause(str(error))
            else:
                good.append(reply)
        return sorted(good, key=self._client)

    def _check_upload(self, reply: Message) -> None:
        """Raise `FedcertError` unless a reply can be averaged."""
        self._decoded(arrays_of(reply.content, most=largest_upload(self._space)))
        _check_records(reply)

    def _decoded(self, tensors: dict[str, Any]) -> FloatArray:
        whole = with_zero_head(self._space, tensors, self._federated)
        return decode(self._space, whole, space_digest=self._space.digest)

    def _causes(self) -> str:
        return "; ".join(sorted(set(self.failures.values()))) or "no node is one"


def _record(tensors: dict[str, Any]) -> ArrayRecord:
    return ArrayRecord({name: Array(np.ascontiguousarray(t)) for name, t in tensors.items()})


def _check_records(reply: Message) -> None:
    """Raise `FedcertError` unless Flower's FedAvg can average a reply with the others."""
    records = reply.content
    if len(records.array_records) != 1 or len(records.metric_records) != 1:
        raise FedcertError("its reply must hold one record of arrays and one of metrics")
    (metrics,) = records.metric_records.values()
    if set(metrics) != {"num-examples", "seconds"}:
        raise FedcertError("its metrics must be num-examples and seconds")
    if not 1 <= _number(metrics, "num-examples") <= _MOST_EXAMPLES:
        raise FedcertError(f"num-examples must be 1 to {_MOST_EXAMPLES:,}")
    _number(metrics, "seconds")


def _check_certificate(reply: Message) -> None:
    """Raise `FedcertError` unless a reply holds a bound."""
    records = reply.content
    if len(records.metric_records) != 1:
        raise FedcertError("its reply must hold one record of metrics")
    (metrics,) = records.metric_records.values()
    if set(metrics) != {"num-examples", "certificate"}:
        raise FedcertError("its metrics must be num-examples and certificate")
    if not 0 < _number(metrics, "certificate") <= 1:
        raise FedcertError("its certificate must lie between 0 and 1")
    if not 1 <= _number(metrics, "num-examples") <= _MOST_EXAMPLES:
        raise FedcertError(f"num-examples must be 1 to {_MOST_EXAMPLES:,}")


def _number(metrics: MetricRecord, name: str) -> float:
    value = metrics.get(name)
    if not isinstance(value, int | float) or not np.isfinite(value):
        raise FedcertError(f"its {name} must be a finite number")
    return float(value)


def _part(grid: Grid, nodes: list[int]) -> Grid:
    """Return some nodes of a grid, so that Flower's sampling takes those and no others."""
    return cast(Grid, _Part(grid, nodes))


class _Part(ObservedGrid):
    def __init__(self, grid: Grid, nodes: list[int]) -> None:
        super().__init__(grid)
        self._nodes = nodes

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes of the part."""
        return self._nodes
