"""The baselines as Flower strategies: the same numbers as in the library, and bad uploads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Error, Message, MetricRecord, RecordDict
from simulations.federation import CLIENTS, NEW, SCENARIO, UPSTREAM, tiny_base, tiny_settings

from fedcert.adapters import AdapterSpace, FinetuneSettings, Task
from fedcert.baselines import FederatedSettings, federated_average
from fedcert.certificates import binomial_upper_bound
from fedcert.clients.baselines import make_baseline_app
from fedcert.errors import RunError, SettingsError
from fedcert.methods.local_training import PersonalTraining, head_part
from fedcert.scenarios import load_scenario
from fedcert.search import BatchedScorer
from fedcert.simulations.runners.flower_internals import LocalGrid
from fedcert.strategies.fedavg_lora import FedAvgLora
from fedcert.strategies.fedprox_lora import FedProxLora
from fedcert.strategies.fedrep_lora import FedRepLora

LOCAL = FinetuneSettings(steps=3, batch_size=16)
QUICK = FederatedSettings(rounds=2, clients_per_round=5, local=LOCAL)
HEADS = FederatedSettings(rounds=3, clients_per_round=5, local=LOCAL, head_steps=3)


class _Federation:
    """Server and clients in this thread; a script answers in some clients' stead."""

    def __init__(self, folder: Path) -> None:
        self.base, self.scenario = tiny_base(), load_scenario(SCENARIO, {})
        self.space = AdapterSpace.of(self.base, rank=2)
        self.app = make_baseline_app(tiny_settings(), folder)
        self.script: dict[str, Callable[[Message], Message]] = {}
        self.grid = LocalGrid(self._answer, nodes=len(CLIENTS))  # type: ignore[arg-type]
        self.trained: list[str] = []

    def _answer(self, message: Message, context: Context) -> Message:
        client = CLIENTS[int(context.node_config["partition-id"])]
        kind = message.metadata.message_type
        if kind == "train":
            self.trained.append(client)
        if kind == "train" and client in self.script:
            return self.script[client](message)
        return self.app(message, context)

    def expected(
        self, settings: FederatedSettings, clients: Sequence[str] = CLIENTS[:UPSTREAM]
    ) -> np.ndarray:
        return federated_average(
            Task(self.base, self.space, self.scenario.inputs).model(),
            {name: self.scenario.training_examples(name) for name in clients},
            settings=settings,
            seed=3,
        )

    def errors(self, adapter: np.ndarray, client: str) -> int:
        scorer = BatchedScorer(
            Task(self.base, self.space, self.scenario.inputs).model(), margin_tolerance=1e-4
        )
        examples = self.scenario.support_examples(client, 32)
        return int(scorer.score(adapter[None], examples).wrong.sum())


@pytest.fixture
def federation(tmp_path: Path) -> _Federation:
    return _Federation(tmp_path)


@pytest.mark.parametrize(
    ("cls", "settings", "others"),
    [
        (FedAvgLora, QUICK, {}),
        (FedProxLora, FederatedSettings(rounds=2, local=LOCAL, proximal_mu=0.5), {}),
        (FedRepLora, HEADS, {"personal": PersonalTraining(settings=LOCAL, head_only=True)}),
    ],
)
def test_flower_aggregates_what_the_library_computes(
    federation: _Federation,
    cls: type[FedAvgLora],
    settings: FederatedSettings,
    others: dict[str, Any],
) -> None:
    strategy = cls(space=federation.space, federated=settings, seed=3, **others)
    result = strategy.run(federation.grid)
    assert strategy.failures == {}
    found = strategy.adapter(result.arrays)
    expected = federation.expected(settings)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-7)
    # New clients train nothing, and each has a bound.
    assert set(federation.trained) <= set(CLIENTS[:UPSTREAM])
    assert set(strategy.certificates) == set(CLIENTS[-NEW:])
    if cls is FedRepLora:
        assert not found[head_part(federation.space)].any()
        assert not {t.name for t in federation.space.head} & set(result.arrays)


def test_the_bound_is_that_of_the_global_adapter_on_all_examples(
    federation: _Federation,
) -> None:
    strategy = FedAvgLora(space=federation.space, federated=QUICK, seed=3)
    adapter = strategy.adapter(strategy.run(federation.grid).arrays)
    for client, bound in strategy.certificates.items():
        errors = federation.errors(adapter, client)
        assert bound == binomial_upper_bound(errors, 32, 0.05)


def test_examples_that_a_bound_rests_on_are_spent(federation: _Federation) -> None:
    first = FedAvgLora(space=federation.space, federated=QUICK, seed=3)
    first.run(federation.grid)
    other = FedAvgLora(space=federation.space, federated=QUICK, seed=4)
    other.run(federation.grid)
    assert other.certificates == {}
    assert all("already spent" in other.failures[client] for client in CLIENTS[-NEW:])


def _reply(message: Message, tensors: dict[str, np.ndarray], **metrics: float) -> Message:
    arrays = ArrayRecord({name: Array(tensor) for name, tensor in tensors.items()})
    values = {"num-examples": 48, "seconds": 1.0} | metrics
    return Message(
        RecordDict({"arrays": arrays, "metrics": MetricRecord(values)}), reply_to=message
    )


def _sent(message: Message) -> dict[str, np.ndarray]:
    return {name: a.numpy().copy() for name, a in message.content["arrays"].items()}


def _not_finite(message: Message) -> Message:
    return _reply(message, {name: a + np.float32(np.nan) for name, a in _sent(message).items()})


def _other_shape(message: Message) -> Message:
    return _reply(message, {name: a[:1] for name, a in _sent(message).items()})


def _boastful(message: Message) -> Message:
    return _reply(message, _sent(message), **{"num-examples": 10**9})


def _negative(message: Message) -> Message:
    return _reply(message, _sent(message), **{"num-examples": -48})


def _other_metrics(message: Message) -> Message:
    return _reply(message, _sent(message), accuracy=1.0)


def _broken(_message: Message) -> Message:
    raise RuntimeError("the disk is gone")


BAD: list[tuple[Callable[[Message], Message], str]] = [
    (_not_finite, "NaN or an infinity"),
    (_other_shape, "has shape"),
    (_boastful, "num-examples must be 1 to"),
    (_negative, "num-examples must be 1 to"),
    (_other_metrics, "its metrics must be"),
    (_broken, "the disk is gone"),
]


def test_bad_uploads_are_left_out(federation: _Federation) -> None:
    """Of fourteen clients six answer badly, each in its own way."""
    settings = FederatedSettings(rounds=2, clients_per_round=0, local=LOCAL)
    for client, (answer, _) in zip(CLIENTS, BAD, strict=False):
        federation.script[client] = answer
    strategy = FedAvgLora(space=federation.space, federated=settings, seed=3)
    found = strategy.adapter(strategy.run(federation.grid).arrays)
    assert sorted(strategy.failures) == CLIENTS[: len(BAD)]
    for client, (_, cause) in zip(CLIENTS, BAD, strict=False):
        assert cause in strategy.failures[client]
        assert federation.trained.count(client) == 1  # a client that failed is asked no more
    expected = federation.expected(settings, CLIENTS[len(BAD) : UPSTREAM])
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_a_round_without_any_upload_ends_the_run(federation: _Federation) -> None:
    for client in CLIENTS[:UPSTREAM]:
        federation.script[client] = _broken
    strategy = FedAvgLora(space=federation.space, federated=QUICK, seed=3)
    with pytest.raises(RunError, match=r"no client could train in round 1: .*the disk is gone"):
        strategy.run(federation.grid)


def test_settings_that_contradict_a_strategy_are_refused(federation: _Federation) -> None:
    with pytest.raises(SettingsError, match="proximal_mu = 0 is FedAvg"):
        FedProxLora(space=federation.space, federated=QUICK, seed=0)
    with pytest.raises(SettingsError, match="heads local"):
        FedRepLora(space=federation.space, federated=QUICK, seed=0, personal=PersonalTraining())


def test_an_error_in_a_nodes_place_counts_as_that_nodes(federation: _Federation) -> None:
    def gone(message: Message) -> Message:
        reply = Message(Error(5, "node unavailable"), reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = 1  # of the SuperLink, which says so
        return reply

    federation.script[CLIENTS[2]] = gone
    strategy = FedAvgLora(
        space=federation.space,
        federated=FederatedSettings(rounds=1, clients_per_round=UPSTREAM, local=LOCAL),
        seed=3,
    )
    strategy.run(federation.grid)
    assert strategy.failures == {CLIENTS[2]: "node unavailable"}
