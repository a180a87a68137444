"""What the ClientApp does for each message."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from simulations.federation import CLIENTS, SCENARIO, UPSTREAM, Federation, tiny_settings

from fedcert import __version__
from fedcert.adapters import decode
from fedcert.certificates import Certificate, verify_record
from fedcert.clients import client_app
from fedcert.clients.client_app import app, make_client_app
from fedcert.clients.node import Node, node_of
from fedcert.errors import DataError
from fedcert.messages import (
    ARRAYS,
    CERTIFY,
    COMMIT,
    HELLO,
    METRICS,
    PROTOCOL_VERSION,
    REPLY,
    TRAIN,
)
from fedcert.messages.flower import arrays_of, content, payload_of
from fedcert.models.identity import weight_digest
from fedcert.protocol.authority import SeedAuthority
from fedcert.protocol.commitment import Commitment
from fedcert.records.signing import public_hex, read_key
from fedcert.strategies.pooled_prior import PooledPrior
from fedcert.verification import check_adapter, check_bundle

FIRST, LAST = 0, 15


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Federation, PooledPrior]:
    federation = Federation(tmp_path_factory.mktemp("served") / "run")
    return federation, federation.start()


@pytest.fixture
def requests(served: tuple[Federation, PooledPrior]) -> dict[str, RecordDict]:
    """What the server sends with each type of message."""
    federation, strategy = served
    bundle = strategy.bundle
    assert bundle is not None
    [message, *_] = Federation(federation.output.parent / "none").strategy().configure_train(
        1, ArrayRecord(), ConfigRecord(), federation.grid
    )  # fmt: skip
    words = {"bundle": bundle.manifest_bytes().decode()}
    return {
        HELLO: RecordDict(),
        TRAIN: message.content,
        COMMIT: content(words, bundle.tensors()),
        CERTIFY: content({"seed": None}),
    }


def _context(index: int, run_config: dict[str, Any] | None = None, **node: Any) -> Context:
    config = {"partition-id": index} | {k.replace("_", "-"): v for k, v in node.items()}
    return Context(1, 100 + index, config, RecordDict(), run_config or {})


Ask = Callable[..., RecordDict]


@pytest.fixture
def ask(tmp_path: Path, requests: dict[str, RecordDict]) -> Ask:
    """Send a message of some type to one client; return the reply's content."""

    def send(
        kind: str, index: int, records: RecordDict | None = None, **node: Any
    ) -> RecordDict:
        message = Message(
            requests[kind] if records is None else records,
            dst_node_id=100 + index,
            message_type=kind,
        )
        message.metadata.__dict__["_message_id"] = "1"
        reply = make_client_app(tiny_settings(), tmp_path / "run")(
            message, _context(index, **node)
        )
        assert reply.metadata.reply_to_message_id == "1"
        assert not reply.has_error()
        return reply.content

    return send


@pytest.fixture
def certify(ask: Ask, served: tuple[Federation, PooledPrior], tmp_path: Path) -> Ask:
    """Let a client commit, issue its seed, and let it certify."""
    authority = SeedAuthority.simulated(tmp_path / "server", 0)
    bundle = served[1].bundle
    assert bundle is not None
    authority.publish(bundle.digest, bundle.recipes)
    # As of a server with a state of its own, which nodes with keys of their own ask for.
    named = replace(bundle, server=authority.public_key)
    authority.publish(named.digest, named.recipes)
    sent = content({"bundle": named.manifest_bytes().decode()}, named.tensors())

    def both(index: int, **node: Any) -> RecordDict:
        words = payload_of(ask(COMMIT, index, sent if node else None, **node), REPLY)
        grant = authority.issue(Commitment.from_object(words["commitment"]))
        return ask(CERTIFY, index, content({"seed": grant.to_object()}), **node)

    return both


def _failure(records: RecordDict) -> str:
    assert set(records) == {REPLY}
    words = payload_of(records, REPLY)
    assert set(words) == {"failed"}
    return str(words["failed"])


def test_hello_tells_id_part_and_version_and_nothing_else(ask: Ask) -> None:
    version = {"protocol": PROTOCOL_VERSION, "version": __version__}
    for index, part in [(FIRST, "upstream"), (LAST, "new")]:
        records = ask(HELLO, index)
        assert set(records) == {REPLY}
        assert payload_of(records, REPLY) == {
            "client": CLIENTS[index],
            "role": part,
            **version,
        }


def test_training_uploads_an_adapter_of_the_servers_space(
    ask: Ask, served: tuple[Federation, PooledPrior]
) -> None:
    records = ask(TRAIN, FIRST)
    space = served[0].space
    words = payload_of(records, REPLY)
    assert words == {"space": space.digest}
    vector = decode(space, arrays_of(records), space_digest=words["space"])
    assert 0 < abs(vector).max() < 10
    metrics = records[METRICS]
    assert set(metrics) == {"num-examples", "loss", "seconds"}
    assert metrics["num-examples"] == 48


@pytest.mark.parametrize("threads", [1, 2])
def test_training_gives_the_same_adapter_each_time(
    ask: Ask, served: tuple[Federation, PooledPrior], threads: int
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.rand(3)  # the global generator plays no part
    try:
        adapter = arrays_of(ask(TRAIN, 3))
    finally:
        torch.set_num_threads(before)
    row = served[0].pool().matrix()[3]
    assert list(row) == list(
        decode(served[0].space, adapter, space_digest=served[0].space.digest)
    )


def test_different_clients_train_different_adapters(
    served: tuple[Federation, PooledPrior],
) -> None:
    assert len({entry.digest for entry in served[0].pool().entries()}) == UPSTREAM


def test_committing_tells_nothing_about_the_examples(
    ask: Ask, tmp_path: Path, served: tuple[Federation, PooledPrior]
) -> None:
    records = ask(COMMIT, LAST)
    assert set(records) == {REPLY}
    words = payload_of(records, REPLY)
    assert set(words) == {"commitment"}
    commitment = Commitment.from_object(words["commitment"])
    assert commitment.client == CLIENTS[LAST]
    bundle = served[1].bundle
    assert bundle is not None
    assert commitment.bundle == bundle.digest
    assert payload_of(ask(COMMIT, LAST), REPLY) == words
    folder = tmp_path / "run" / "clients" / CLIENTS[LAST]
    assert {path.name for path in folder.iterdir()} == {"bundle", "state"}


def test_what_was_uploaded_certifies_nothing(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tiny_scenario import Tiny

    def support(self: Any, client: str, size: int) -> Any:
        return self._draw("training", client, 48).take(slice(size))

    monkeypatch.setattr(Tiny, "support_examples", support)
    shared = {"state_path": str(tmp_path / "shared")}
    ask(TRAIN, LAST, **shared)
    failure = _failure(ask(COMMIT, LAST, **shared))
    expected = "32 of the 32 examples are already spent on: training an upload"
    assert failure.startswith(expected)


def test_a_seed_for_somebody_else_is_refused(
    ask: Ask, certify: Ask, served: tuple[Federation, PooledPrior]
) -> None:
    other = served[1]._authority.history.attempts_of(CLIENTS[LAST - 1])[0]
    grant = served[1]._authority.issue(other.commitment)
    ask(COMMIT, LAST)
    failure = _failure(ask(CERTIFY, LAST, content({"seed": grant.to_object()})))
    assert "the seed belongs to another client" in failure
    assert _failure(ask(CERTIFY, LAST)) == "seed must be an object, not None"


def test_a_seed_without_a_bundle_is_refused(
    ask: Ask, served: tuple[Federation, PooledPrior]
) -> None:
    [attempt] = served[1]._authority.history.attempts_of(CLIENTS[LAST])
    grant = served[1]._authority.issue(attempt.commitment)
    failure = _failure(ask(CERTIFY, LAST, content({"seed": grant.to_object()})))
    assert "bundle: there is no such folder or file" in failure


def test_certifying_returns_the_certificate_and_keeps_the_adapter(
    certify: Ask, tmp_path: Path, served: tuple[Federation, PooledPrior]
) -> None:
    records = certify(LAST)
    assert ARRAYS not in records
    words = payload_of(records, REPLY)
    assert set(words) == {"certificate"}
    certificate = Certificate.from_json(words["certificate"])
    folder = tmp_path / "run" / "clients" / CLIENTS[LAST]
    assert Certificate.read(folder / "certificate.json") == certificate
    bundle = served[1].bundle
    assert bundle is not None
    report = verify_record(certificate).extended(
        [
            *check_bundle(certificate, bundle),
            *check_adapter(certificate, bundle, folder / "adapter"),
        ]
    )
    assert report.passed, report.failures
    assert certificate.support_size == 32
    assert certificate.client == CLIENTS[LAST]
    assert certificate == served[1].certificates[CLIENTS[LAST]]
    metrics = records[METRICS]
    assert set(metrics) == {"seconds", "test-error", "num-test-examples"}
    assert metrics["num-test-examples"] == 100


def test_the_true_error_is_measured_only_where_there_are_test_examples(
    certify: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiny_scenario import Tiny

    monkeypatch.setattr(Tiny, "test_examples", lambda _self, _client: None)
    assert set(certify(LAST)[METRICS]) == {"seconds"}


def test_keys_and_files_are_where_the_nodes_configuration_says(
    certify: Ask, tmp_path: Path
) -> None:
    key, own, state = (tmp_path / name for name in ("node.key", "own", "kept"))
    node = {"key_path": str(key), "output": str(own), "state_path": str(state)}
    records = certify(LAST, **node)
    certificate = Certificate.from_json(payload_of(records, REPLY)["certificate"])
    assert certificate.signature.public_key == public_hex(read_key(key))
    assert (own / "certificate.json").is_file()
    assert (own / "adapter" / "adapter_model.safetensors").is_file()
    assert (state / "spent.sqlite").is_file()
    made = {"adapter", "certificate.json", "errors-by-label.json"}
    assert {path.name for path in own.iterdir()} == made
    assert not (tmp_path / "run").exists()


def test_a_key_of_ones_own_takes_no_seed_that_anybody_can_compute(
    ask: Ask, tmp_path: Path
) -> None:
    node = {"key_path": str(tmp_path / "node.key"), "output": str(tmp_path / "own")}
    assert "set server.state" in _failure(ask(COMMIT, LAST, **node))
    # Nothing was spent: the same examples certify once the server has a state.
    assert not (tmp_path / "own" / "state").exists()


@pytest.mark.parametrize(("kind", "index"), [(HELLO, FIRST), (TRAIN, FIRST), (COMMIT, LAST)])
def test_no_message_changes_the_base_model(ask: Ask, kind: str, index: int) -> None:
    node = node_of(_context(index), tiny_settings(), Path("/run"))
    base = node.base_model()
    grads = [parameter.requires_grad for parameter in base.model.parameters()]
    ask(kind, index)
    assert node.base_model() is base
    assert weight_digest(base.model) == base.weights
    assert [parameter.requires_grad for parameter in base.model.parameters()] == grads
    assert not base.model.training
    assert all(parameter.grad is None for parameter in base.model.parameters())


# Threads


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("fails", [False, True])
def test_handlers_run_on_one_thread_and_give_the_others_back(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    seen: list[int] = []

    def handler(_message: Message, _node: Node) -> RecordDict:
        seen.append(torch.get_num_threads())
        if fails:
            raise DataError("no data here")
        return content({}, key=REPLY)

    monkeypatch.setitem(client_app.HANDLERS, TRAIN, handler)
    records = ask(TRAIN, FIRST)
    assert ("failed" in payload_of(records, REPLY)) == fails
    assert seen == [1]
    assert torch.get_num_threads() == 3


# What goes wrong


def test_a_mistake_is_told_in_one_line(ask: Ask, capfd: pytest.CaptureFixture[str]) -> None:
    assert _failure(ask(HELLO, 99)) == "partition-id 99 is out of range: tiny has 16 clients"
    assert "Traceback" not in capfd.readouterr().err


def test_a_bug_is_told_in_one_line_and_its_story_stays_on_the_node(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def handler(_message: Message, _node: Node) -> RecordDict:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setitem(client_app.HANDLERS, CERTIFY, handler)
    assert _failure(ask(CERTIFY, LAST)) == "ZeroDivisionError: division by zero"
    assert "Traceback" in capfd.readouterr().err


def test_a_request_of_something_else_is_refused(ask: Ask) -> None:
    for kind in (TRAIN, COMMIT, CERTIFY):
        expected = "the message has no 'manifest' record; its sender is not fedcert"
        assert _failure(ask(kind, LAST, RecordDict())) == expected


def test_a_damaged_bundle_is_refused(ask: Ask, requests: dict[str, RecordDict]) -> None:
    words, arrays = payload_of(requests[COMMIT]), arrays_of(requests[COMMIT])
    first = min(arrays)
    changed = arrays | {first: arrays[first] + 1}
    failure = _failure(ask(COMMIT, LAST, content(words, changed)))
    assert failure == "the bundle is damaged: its arrays do not match its manifest"


def test_a_bundle_for_another_base_model_is_refused(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tiny_scenario import Tiny, save_tiny_base

    save_tiny_base(tmp_path / "other", seed=1)
    monkeypatch.setattr(Tiny, "base_model", lambda _self, **_: tmp_path / "other")
    failure = _failure(ask(COMMIT, LAST))
    assert failure.startswith("the bundle is for another base model (")
    assert "clients" not in [path.name for path in (tmp_path / "run").glob("*")]


@pytest.mark.parametrize("output", ["", "run", "~/run"])
def test_a_relative_output_is_refused(requests: dict[str, RecordDict], output: str) -> None:
    message = Message(requests[HELLO], dst_node_id=100, message_type=HELLO)
    reply = app(message, _context(FIRST, {"output": output, "scenario.name": SCENARIO}))
    assert "is not an absolute path" in _failure(reply.content)


def test_settings_come_from_the_run_config(requests: dict[str, RecordDict]) -> None:
    message = Message(requests[HELLO], dst_node_id=102, message_type=HELLO)
    config = {
        "output": "/run",
        "scenario.name": SCENARIO,
        "scenario.options.upstream": 2,
        "server.min-pool": 30,
    }
    words = payload_of(app(message, _context(2, config)).content, REPLY)
    assert (words["client"], words["role"]) == (CLIENTS[2], "new")
    assert config["output"] == "/run"  # Flower's own is not changed


def test_an_unknown_setting_in_the_run_config(requests: dict[str, RecordDict]) -> None:
    message = Message(requests[HELLO], dst_node_id=100, message_type=HELLO)
    reply = app(message, _context(FIRST, {"output": "/run", "sed": 3}))
    assert _failure(reply.content).startswith(
        "setting 'sed': there is no such setting; there is "
    )
