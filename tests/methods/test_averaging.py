"""Rounds over messages: the library's own numbers, what is refused, and going on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict
from safetensors.numpy import load_file
from simulations.federation import CLIENTS, NEW, UPSTREAM, Federation

from fedcert.adapters import Task
from fedcert.arrays import FloatArray
from fedcert.errors import RunError
from fedcert.messages import AVERAGE
from fedcert.messages.flower import content
from fedcert.methods.federated import drawn_clients, local_round, round_seed, weighted_mean
from fedcert.methods.local_training import body_part, head_part
from fedcert.scenarios import load_scenario
from fedcert.simulations.runners.flower_internals import LocalGrid

from .test_launched import quick


def _expected(federation: Federation, clients: list[str]) -> FloatArray:
    """Return what clients and a mean of theirs give without a message."""
    settings, scenario = federation.settings, load_scenario("tiny_scenario:Tiny", {})
    federated, seed = settings.method_of().federated, settings.seed
    model = Task(federation.base, federation.space, scenario.inputs).model()
    received = np.zeros(model.space.dimension, dtype=np.float32)
    head, heads = head_part(model.space), {}
    for number in range(1, federated.rounds + 1):
        names = drawn_clients(clients, federated.clients_per_round, seed, number)
        examples = [scenario.training_examples(name) for name in names]
        trained = [
            local_round(
                model, received, part, settings=federated,
                seed=round_seed(seed, number, name), own_head=heads.get(name),
            )
            for name, part in zip(names, examples, strict=True)
        ]  # fmt: skip
        received = weighted_mean(trained, [len(part) for part in examples])
        if not federated.averages_head:
            heads |= {name: own[head] for name, own in zip(names, trained, strict=True)}
            received[head] = 0.0
    return received.astype(np.float64)


@pytest.mark.parametrize("method", ["fedavg", "fedprox", "fedrep", "ditto"])
def test_messages_average_what_the_library_does(tmp_path: Path, method: str) -> None:
    federation = Federation(tmp_path, quick(method, averaging__rounds=3))
    bundle = federation.serve().strategy.bundle
    assert bundle is not None
    found, expected = bundle.prior.center(), _expected(federation, CLIENTS[:UPSTREAM])
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-7)
    if method == "fedrep":
        assert not found[head_part(federation.space)].any()
        assert found[body_part(federation.space)].any()
    asked = {client for kind, client in federation.clients.asked if kind == AVERAGE}
    assert asked <= set(CLIENTS[:UPSTREAM])


def test_personal_adapters_go_on_where_they_stopped_and_are_pulled(tmp_path: Path) -> None:
    """Clients of MR-MTL meet at the mean as the pull grows; without it nothing holds them."""
    spreads = []
    for pull in (0.0, 100.0):
        settings = quick("mr-mtl", averaging__clients=0, averaging__pull=pull)
        federation = Federation(tmp_path / str(pull), settings)
        bundle = federation.serve().strategy.bundle
        assert bundle is not None
        kept = [federation.output / "clients" / c / "averaging" for c in CLIENTS[:UPSTREAM]]
        own = [
            load_file(sorted(folder.rglob("*.safetensors"))[-1])["adapter"] for folder in kept
        ]
        np.testing.assert_allclose(np.mean(own, axis=0), bundle.prior.center(), atol=1e-5)
        spreads.append(float(np.std(own, axis=0).mean()))
    assert spreads[1] < spreads[0] / 2


def _reply(message: Message, tensors: dict[str, np.ndarray], examples: float = 48) -> Message:
    records = content({}, key="reply")
    records["arrays"] = ArrayRecord({name: Array(tensor) for name, tensor in tensors.items()})
    records["metrics"] = MetricRecord({"num-examples": examples})
    return Message(records, reply_to=message)


def _state(message: Message) -> dict[str, np.ndarray]:
    return {
        name.removeprefix("state."): array.numpy().copy()
        for name, array in message.content["arrays"].items()
        if name.startswith("state.")
    }


def _times(factor: float) -> Callable[[Message], Message]:
    return lambda message: _reply(
        message, {n: np.full_like(a, factor) for n, a in _state(message).items()}
    )


def _boasting(message: Message) -> Message:
    return _reply(message, _state(message), 10**9)


def _other_shape(message: Message) -> Message:
    return _reply(message, {name: array[:1] for name, array in _state(message).items()})


def _double(message: Message) -> Message:
    return _reply(message, {n: a.astype(np.float64) for n, a in _state(message).items()})


def _silent(message: Message) -> Message:
    return Message(RecordDict({}), reply_to=message)


BAD: list[tuple[Callable[[Message], Message], str]] = [
    (_times(np.nan), "no array of finite float32"),
    (_times(1e6), "above the limit"),
    (_boasting, "must hold num-examples from 1 to 1,000,000"),
    (_other_shape, "names and shapes"),
    (_double, "no array of finite float32"),
    (_silent, "no 'reply' record"),
]


def test_bad_updates_are_left_out_and_their_clients_asked_no_more(tmp_path: Path) -> None:
    federation = Federation(tmp_path, quick("fedavg", averaging__clients=0))
    for client, (answer, _) in zip(CLIENTS, BAD, strict=False):
        federation.on(AVERAGE, client, answer)
    strategy = federation.serve().strategy
    causes = {failure.client: failure.cause for failure in strategy.failures}
    assert sorted(causes) == CLIENTS[: len(BAD)]
    for client, (_, cause) in zip(CLIENTS, BAD, strict=False):
        assert cause in causes[client]
        assert federation.clients.asked.count((AVERAGE, client)) == 1
    assert strategy.bundle is not None
    expected = _expected(federation, CLIENTS[len(BAD) : UPSTREAM])
    np.testing.assert_allclose(strategy.bundle.prior.center(), expected, atol=1e-7)
    assert set(strategy.certificates) == set(CLIENTS[-NEW:])


class _Counting(LocalGrid):
    """Counts requests for updates."""

    averaged = 0

    def _run(self, message: Message) -> Message:
        if message.metadata.message_type == AVERAGE:
            self.averaged += 1
        return super()._run(message)


class _Dying(_Counting):
    """Ends in the middle of the third round of five clients each."""

    def _run(self, message: Message) -> Message:
        if self.averaged == 12:
            raise KeyboardInterrupt
        return super()._run(message)


class _Losing(_Counting):
    """Loses all five clients of the first round."""

    def _run(self, message: Message) -> Message:
        reply = super()._run(message)
        if message.metadata.message_type == AVERAGE and self.averaged <= 5:
            return Message(Error(5, "node unavailable"), reply_to=message)
        return reply


def test_a_round_that_is_lost_does_not_lose_the_run(tmp_path: Path) -> None:
    federation = Federation(tmp_path, quick("fedavg"))
    federation.grid = _Losing(federation.clients, nodes=federation.nodes)  # type: ignore[arg-type]
    strategy = federation.serve().strategy
    assert {failure.cause for failure in strategy.failures} == {"node unavailable"}
    assert strategy.bundle is not None
    assert np.abs(strategy.bundle.prior.center()).max() > 0.01
    assert set(strategy.certificates) == set(CLIENTS[-NEW:])
    assert strategy.bundle.notes["rounds"] == 1


def test_a_run_that_died_goes_on_with_the_next_round(tmp_path: Path) -> None:
    settings = quick("mr-mtl", averaging__rounds=4)
    whole = Federation(tmp_path / "whole", settings).serve().strategy.bundle

    broken = Federation(tmp_path / "broken", settings)
    broken.grid = _Dying(broken.clients, nodes=broken.nodes)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        broken.serve()
    again = Federation(tmp_path / "broken", settings)
    bundle = again.serve().strategy.bundle
    assert whole is not None
    assert bundle is not None
    assert bundle.prior.digest == whole.prior.digest
    assert again.clients.count()[AVERAGE] == 2 * 5  # two rounds were done


def test_a_run_without_a_single_update_says_why(tmp_path: Path) -> None:
    federation = Federation(tmp_path, quick("fedavg"))
    for client in CLIENTS[:UPSTREAM]:
        federation.on(AVERAGE, client, _times(np.nan))
    with pytest.raises(RunError, match="no array of finite float32"):
        federation.serve()
