"""Clients that are broken or hostile: each is reported once, and the run goes on."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from simulations.federation import (
    CLIENTS,
    NEW,
    UPSTREAM,
    Federation,
    Handler,
    LossyGrid,
    tiny_settings,
)

from fedcert.bundles import Bundle
from fedcert.certificates import Certificate, issue
from fedcert.clients.client_app import make_client_app
from fedcert.clients.node import node_of
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
from fedcert.personalization import candidate_seed, personalize
from fedcert.protocol.commitment import Commitment
from fedcert.randomness import derive_seed
from fedcert.records.signing import key_from_seed, public_hex, sign
from fedcert.runs.failures import Failure
from fedcert.strategies.pooled_prior import PooledPrior

UNLUCKY = CLIENTS[3]
LAST = CLIENTS[-1]

Change = Callable[[dict[str, Any]], None]


def _upload(federation: Federation, client: str = UNLUCKY) -> RecordDict:
    """Return what an honest client would upload."""
    context = federation.grid._contexts[100 + CLIENTS.index(client)]
    request = federation.strategy()
    message = next(
        message
        for message in request.configure_train(
            1, ArrayRecord(), ConfigRecord(), federation.grid
        )
        if message.metadata.dst_node_id == context.node_id
    )
    message.metadata.__dict__["_message_id"] = "probe"
    return federation.clients.honest(message, context).content


def _with_arrays(change: Change) -> Callable[[RecordDict], None]:
    def apply(records: RecordDict) -> None:
        arrays: dict[str, Any] = {name: a.copy() for name, a in arrays_of(records).items()}
        change(arrays)
        records[ARRAYS] = ArrayRecord(
            {n: a if isinstance(a, Array) else Array(a) for n, a in arrays.items()}
        )

    return apply


def _with_metric(name: str, value: Any) -> Callable[[RecordDict], None]:
    def apply(records: RecordDict) -> None:
        records[METRICS] = MetricRecord({**records[METRICS], name: value})  # type: ignore

    return apply


def _with_reply(text: str) -> Callable[[RecordDict], None]:
    def apply(records: RecordDict) -> None:
        records[REPLY] = ConfigRecord({"json": text})

    return apply


def _set(value: Any) -> Change:
    def change(arrays: dict[str, Any]) -> None:
        arrays["classifier.bias"][...] = value

    return change


def _put(array: Any) -> Change:
    def change(arrays: dict[str, Any]) -> None:
        arrays["classifier.bias"] = array

    return change


def _renamed(arrays: dict[str, Any]) -> None:
    arrays["classifier.shift"] = arrays.pop("classifier.bias")


def _zeroed(arrays: dict[str, Any]) -> None:
    for array in arrays.values():
        array[...] = 0


def _torn(dtype: str = "float32", stype: str = "numpy.ndarray", data: bytes = b"torn") -> Array:
    return Array(dtype=dtype, shape=(2,), stype=stype, data=data)


def _pickled() -> Array:
    buffer = io.BytesIO()
    np.save(buffer, np.array([print, 1], dtype=object), allow_pickle=True)
    return _torn(dtype="object", data=buffer.getvalue())


def _archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, np.ones(2, np.float32))
    return buffer.getvalue()


def _claims_terabytes() -> bytes:
    buffer = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (2**44,)}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


BAD_UPLOADS: dict[str, tuple[Callable[[RecordDict], None], str]] = {
    "NaN": (_with_arrays(_set(np.nan)), r"'classifier\.bias' holds NaN or an infinity"),
    "infinity": (_with_arrays(_set(-np.inf)), "holds NaN or an infinity"),
    "huge": (_with_arrays(_set(1e6)), r"its norm is 1\.41e\+06, above the limit of 1000"),
    "overflowing": (_with_arrays(_set(3e38)), "above the limit of 1000"),
    "zero": (_with_arrays(_zeroed), "it is all zeros: nothing was trained"),
    "renamed": (_with_arrays(_renamed), r"missing 'classifier\.bias', unexpected"),
    "extra": (_with_arrays(lambda a: a.update(x=np.ones(1))), "unexpected 'x'"),
    "shape": (_with_arrays(_put(np.ones((2, 1), np.float32))), r"has shape \(2, 1\); it must"),
    "scalar": (_with_arrays(_put(np.array(1, np.float32))), r"has shape \(\); it must"),
    "dtype": (_with_arrays(_put(np.ones(2))), "is float64; it must be float32"),
    "torn": (_with_arrays(_put(_torn())), "cannot be read"),
    "serializer": (_with_arrays(_put(_torn(stype="pickle"))), "cannot be read"),
    "pickle": (_with_arrays(_put(_pickled())), "cannot be read"),
    "archive": (_with_arrays(_put(_torn(data=_archive()))), "it is not an array"),
    "too large": (_with_arrays(_put(_torn(data=_claims_terabytes()))), "cannot be read"),
    "long name": (_with_arrays(lambda a: a.update({"x\n" * 9999: a.popitem()[1]})), "^upload"),
    "no arrays": (lambda r: r.pop(ARRAYS), "do not match the space: missing"),
    "no reply": (lambda r: r.pop(REPLY), "has no 'reply' record; its sender is not fedcert"),
    "not JSON": (_with_reply("{"), "'reply' record is not JSON"),
    "deep JSON": (_with_reply("[" * 100_000), "'reply' record is not JSON"),
    "a list": (_with_reply("[]"), "'reply' record is not a JSON object"),
    "other space": (_with_reply('{"space": "00"}'), r"for another adapter space \(00 instead"),
    "surrogate": (_with_reply('{"space": "\\ud800"}'), "for another adapter space"),
    "no examples": (_with_metric("num-examples", 0), "claims to be trained on 0 examples"),
    "minus one": (_with_metric("num-examples", -1), "claims to be trained on -1 examples"),
    "2**63": (_with_metric("num-examples", 2**63), "claims to be trained on 9\\d+ examples"),
    "NaN examples": (_with_metric("num-examples", float("nan")), "on 0 examples"),
    "inf examples": (_with_metric("num-examples", float("inf")), "on 0 examples"),
    "NaN loss": (_with_metric("loss", float("nan")), "its training loss is not finite"),
    "failed": (_with_reply('{"failed": "no room\\n\\u001b[31mdisk full"}'), "^disk full$"),
}


@pytest.mark.parametrize("case", BAD_UPLOADS)
def test_a_bad_upload_costs_one_client(federation: Federation, case: str) -> None:
    damage, cause = BAD_UPLOADS[case]
    upload = _upload(federation)
    damage(upload)
    federation.on(TRAIN, UNLUCKY, lambda _message: upload)
    _check_one_failure(federation.start(), UNLUCKY, "training", cause)
    assert len(federation.pool()) == UPSTREAM - 1


def _check_one_failure(strategy: PooledPrior, client: str, phase: str, cause: str) -> None:
    assert [(f.client, f.phase) for f in strategy.failures] == [(client, phase)]
    text = strategy.failures[0].cause
    assert re.search(cause, text)
    assert text.isprintable()
    assert len(text) < 500
    expected = NEW - (client in CLIENTS[UPSTREAM:])
    assert len(strategy.certificates) == expected
    assert strategy.bundle is not None
    assert strategy.bundle.notes["pool"] == UPSTREAM - (client in CLIENTS[:UPSTREAM])


def _raising(_message: Message) -> RecordDict:
    raise ZeroDivisionError("division by zero")


def _error(code: int, reason: str | None) -> Handler:
    return lambda message: Message(Error(code, reason), reply_to=message)


_TRACEBACK = "\x1b[36mray::ClientAppActor\x1b[39m\n  File x.py\nValueError: no data here\n"


@pytest.mark.parametrize("kind", [TRAIN, CERTIFY])
@pytest.mark.parametrize("observed", [False, True], ids=["plain", "observed"])
@pytest.mark.parametrize(
    ("handler", "cause"),
    [
        pytest.param(_raising, "division by zero", id="raises"),
        pytest.param(_error(5, "node unavailable"), "^node unavailable$", id="error"),
        pytest.param(_error(8, None), "^code 8$", id="no-reason"),
        pytest.param(_error(2, _TRACEBACK), "^ValueError: no data here$", id="traceback"),
        pytest.param(lambda _: RecordDict(), "its sender is not fedcert", id="empty"),
    ],
)
def test_a_client_that_fails_is_reported_once(
    federation: Federation, kind: str, observed: bool, handler: Handler, cause: str
) -> None:
    client, phase = (UNLUCKY, "training") if kind == TRAIN else (LAST, "certification")
    federation.on(kind, client, handler)
    _check_one_failure(federation.start(observed=observed), client, phase, cause)
    assert federation.clients.count()[kind] == (UPSTREAM if kind == TRAIN else NEW)


@pytest.mark.parametrize("observed", [False, True], ids=["plain", "observed"])
def test_a_failed_client_is_not_asked_again_in_the_same_run(
    tmp_path: Path, observed: bool
) -> None:
    federation = Federation(tmp_path / "run", tiny_settings(server__clients_per_round=4))
    federation.on(TRAIN, UNLUCKY, _raising)
    _check_one_failure(federation.start(observed=observed), UNLUCKY, "training", "division")
    assert federation.clients.count()[TRAIN] == UPSTREAM


def test_a_failed_client_is_asked_again_in_the_next_run(federation: Federation) -> None:
    federation.on(TRAIN, UNLUCKY, _raising)
    federation.start()
    again = Federation(federation.output)
    strategy = again.start()
    assert again.clients.asked.count((TRAIN, UNLUCKY)) == again.clients.count()[TRAIN] == 1
    assert strategy.failures == []
    assert len(again.pool()) == UPSTREAM


@pytest.mark.parametrize("observed", [False, True], ids=["plain", "observed"])
@pytest.mark.parametrize(
    ("kind", "client", "phase"),
    [(TRAIN, UNLUCKY, "training"), (CERTIFY, LAST, "certification")],
)
def test_no_answer_in_time(
    federation: Federation, kind: str, client: str, phase: str, observed: bool
) -> None:
    nodes = UPSTREAM + NEW
    federation.grid = LossyGrid(federation.clients, nodes=nodes, lost={(kind, client)})
    strategy = federation.start(observed=observed, timeout=1.0)
    _check_one_failure(strategy, client, phase, "^no answer in time$")


def test_nobody_answers(federation: Federation) -> None:
    lost = {(TRAIN, client) for client in CLIENTS}
    federation.grid = LossyGrid(federation.clients, nodes=UPSTREAM + NEW, lost=lost)
    strategy = federation.start(timeout=0.1)
    assert {f.cause for f in strategy.failures} == {"no answer in time"}
    assert sorted(f.client for f in strategy.failures) == CLIENTS[:UPSTREAM]
    assert strategy.bundle is None


def test_an_answer_that_comes_twice_counts_once(federation: Federation) -> None:
    strategy = federation.strategy()
    [first, *_] = strategy.configure_train(1, ArrayRecord(), ConfigRecord(), federation.grid)
    [message_id] = federation.grid.push_messages([first])
    [reply] = federation.grid.pull_messages([message_id])
    strategy.receive(reply)
    traffic = strategy.traffic.up[CLIENTS[0]]
    strategy.receive(reply)
    assert traffic == strategy.traffic.up[CLIENTS[0]] > 0
    assert len(federation.pool()) == 1


def test_an_answer_to_something_else_is_ignored(federation: Federation) -> None:
    strategy = federation.strategy()
    strategy.configure_train(1, ArrayRecord(), ConfigRecord(), federation.grid)
    stray = Message(RecordDict(), dst_node_id=100, message_type=TRAIN)
    stray.metadata.__dict__["_message_id"] = "of another run"
    strategy.receive(Message(_upload(federation), reply_to=stray))
    assert len(federation.pool()) == 0
    assert strategy.failures == []


def test_a_copied_upload_is_refused(federation: Federation) -> None:
    stolen = _upload(federation, CLIENTS[0])
    federation.on(TRAIN, UNLUCKY, lambda _message: stolen)
    cause = "the very same adapter came from another client"
    _check_one_failure(federation.start(), UNLUCKY, "training", cause)


def test_several_kinds_of_trouble_in_one_run(federation: Federation) -> None:
    federation.on(TRAIN, CLIENTS[1], _raising)
    federation.on(TRAIN, CLIENTS[2], _error(5, "node unavailable"))
    bad = _upload(federation, CLIENTS[5])
    _with_arrays(_set(np.nan))(bad)
    federation.on(TRAIN, CLIENTS[5], lambda _message: bad)
    federation.on(CERTIFY, LAST, _raising)
    strategy = federation.start()
    assert [f.client for f in strategy.failures] == [CLIENTS[i] for i in (1, 2, 5, -1)]
    assert len(federation.pool()) == UPSTREAM - 3
    assert sorted(strategy.certificates) == [CLIENTS[UPSTREAM]]


# Certificates


class _Forger:
    """A new client that certifies as it should, and then changes what it sends."""

    def __init__(
        self, federation: Federation, change: Callable[[Certificate], str | None]
    ) -> None:
        self._app = make_client_app(federation.settings, federation.output)
        self._context = federation.grid._contexts[100 + CLIENTS.index(LAST)]
        self._change = change

    def __call__(self, message: Message) -> RecordDict:
        records = self._app(message, self._context).content
        certificate = Certificate.from_json(payload_of(records, REPLY)["certificate"])
        sent = {"certificate": self._change(certificate)}
        records[REPLY] = ConfigRecord({"json": json.dumps(sent)})
        return records


_KEY = key_from_seed(b"f" * 32)


def _reissued(certificate: Certificate, **changes: Any) -> str:
    """Sign a certificate that is sound in itself but claims something else."""
    terms = {
        "client": certificate.client,
        "recipe": certificate.recipe,
        "errors": certificate.errors,
        "certified_on": certificate.certified_on,
        "support_size": certificate.support_size,
        "labels": certificate.labels,
        "index": certificate.candidate.index,
        "seed": certificate.candidate.seed,
        "vector": certificate.adapter_vector,
        "digests": certificate.digests,
        "key": _KEY,
    }
    return issue(**(terms | changes)).to_json()


def _with_the_seed(certificate: Certificate, **changes: Any) -> str:
    """Claim something else with the seed that the server did issue to this client."""
    key = key_from_seed(bytes.fromhex(derive_seed("simulated client key", 0, LAST)))
    return _reissued(certificate, key=key, protocol=certificate.protocol, **changes)


def _signed_by(certificate: Certificate, key: Ed25519PrivateKey) -> str:
    signature = replace(certificate.signature, public_key=public_hex(key))
    changed = replace(certificate, signature=signature)
    value = sign(key, changed.payload())
    return replace(changed, signature=replace(signature, value=value)).to_json()


FORGERIES: dict[str, tuple[Callable[[Certificate], str | None], str]] = {
    "bound": (
        lambda c: replace(c, bound=0.01).to_json(),
        "was changed after signing.*but the record says 0.01",
    ),
    "errors": (
        lambda c: replace(c, errors=c.errors + 1).to_json(),
        "was changed after signing",
    ),
    "another recipe": (
        lambda c: _reissued(c, recipe=replace(c.recipe, candidates=2), index=0),
        "the bundle prescribes another recipe for n = 32",
    ),
    "another delta": (
        lambda c: _reissued(c, recipe=replace(c.recipe, delta=0.5)),
        "the bundle prescribes another recipe",
    ),
    "chosen seed": (
        lambda c: _reissued(c, seed="0" * 64),
        "the seed does not follow from bundle, client and n: it was chosen",
    ),
    "chosen adapter": (
        lambda c: _with_the_seed(c, vector=c.adapter_vector + 1e-3),
        "the adapter is not candidate",
    ),
    "another size": (
        lambda c: _with_the_seed(c, vector=c.adapter_vector[1:]),
        "the adapter's vector has another length",
    ),
    "the seed of no server": (
        lambda c: _reissued(
            c,
            recipe=c.recipe.with_delta(0.05),
            seed=candidate_seed(c.digests.bundle, c.client, c.support_size),
        ),
        "the adapter is not candidate",
    ),
    "signed by another key": (
        lambda c: _signed_by(c, _KEY),
        "was not issued for this by the server",
    ),
    "another bundle": (
        lambda c: _reissued(c, digests=replace(c.digests, bundle="0" * 64)),
        r"the certificate names another bundle \(0000",
    ),
    "another base": (
        lambda c: _reissued(c, digests=replace(c.digests, base_model="0" * 64)),
        "another base model",
    ),
    "other labels": (lambda c: _reissued(c, labels=("bright", "dark")), "another labels"),
    "damaged": (lambda c: c.to_json()[:-40], "the certificate is damaged: it is not JSON"),
    "unknown field": (
        lambda c: c.to_json().replace('"bound"', '"bond"'),
        r"certificate\.bond is not a known field",
    ),
    "nothing": (lambda _certificate: None, "certificate"),
}


@pytest.mark.parametrize("case", FORGERIES)
def test_a_forged_certificate_is_refused(federation: Federation, case: str) -> None:
    change, cause = FORGERIES[case]
    federation.on(CERTIFY, LAST, _Forger(federation, change))
    strategy = federation.start()
    _check_one_failure(strategy, LAST, "certification", cause)
    assert sorted(strategy.certificates) == [CLIENTS[UPSTREAM]]


def test_the_certificate_of_another_client_is_refused(
    federation: Federation, undisturbed: PooledPrior
) -> None:
    other = undisturbed.certificates[CLIENTS[UPSTREAM]].to_json()
    federation.on(CERTIFY, LAST, lambda _: content({"certificate": other}, key=REPLY))
    cause = f"it sent the certificate of '{CLIENTS[UPSTREAM]}'"
    _check_one_failure(federation.start(), LAST, "certification", cause)


def test_an_adapter_instead_of_a_certificate_is_refused(federation: Federation) -> None:
    upload = _upload(federation)
    federation.on(CERTIFY, LAST, lambda _: upload)
    _check_one_failure(federation.start(), LAST, "certification", "certificate")
    assert len(federation.pool()) == UPSTREAM


def test_a_certificate_that_no_server_witnessed_is_refused(federation: Federation) -> None:
    """A client goes the unwitnessed way instead: honest, but its seed was not issued."""

    def alone(message: Message) -> RecordDict:
        bundle = Bundle.load(federation.output / "clients" / LAST / "bundle")
        context = federation.grid._contexts[100 + CLIENTS.index(LAST)]
        node = node_of(context, federation.settings, federation.output)
        result = personalize(
            bundle,
            node.model_of(bundle.task(node.base_model())),
            node.scenario.support_examples(LAST, 32),
            client=LAST,
            key=node.signing_key(),
            folder=federation.output / "alone",
        )
        return content({"certificate": result.certificate.to_json()}, key=REPLY)

    federation.on(CERTIFY, LAST, alone)
    cause = "the certificate's seed was not issued by this server"
    _check_one_failure(federation.start(), LAST, "certification", cause)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda c: replace(c, client="tiny-14"), "was changed after signing"),
        (lambda c: replace(c, bundle="00" * 32), "was changed after signing"),
        (lambda _: None, "commitment must be an object, not None"),
    ],
)
def test_a_forged_commitment_is_refused(
    federation: Federation, change: Callable[[Commitment], Commitment | None], cause: str
) -> None:
    context = federation.grid._contexts[100 + CLIENTS.index(LAST)]
    honest = make_client_app(federation.settings, federation.output)

    def forge(message: Message) -> RecordDict:
        words = payload_of(honest(message, context).content, REPLY)
        forged = change(Commitment.from_object(words["commitment"]))
        sent = None if forged is None else forged.to_object()
        return content({"commitment": sent}, key=REPLY)

    federation.on(COMMIT, LAST, forge)
    strategy = federation.start()
    _check_one_failure(strategy, LAST, "commitment", cause)
    assert strategy._authority.history.attempts_of(LAST) == []


def test_the_commitment_of_another_client_is_refused(
    federation: Federation, undisturbed: PooledPrior
) -> None:
    [other] = undisturbed._authority.history.attempts_of(CLIENTS[UPSTREAM])
    words = {"commitment": other.commitment.to_object()}
    federation.on(COMMIT, LAST, lambda _: content(words, key=REPLY))
    cause = f"it sent the commitment of '{CLIENTS[UPSTREAM]}'"
    _check_one_failure(federation.start(), LAST, "commitment", cause)


# Who is there


def _says(client: object, role: object = "upstream") -> Handler:
    words = {"client": client, "role": role, "protocol": PROTOCOL_VERSION}
    return lambda _message: content(words, key=REPLY)


def _lacks(federation: Federation, node: int) -> tuple[PooledPrior, Failure]:
    strategy = federation.start()
    [failure] = strategy.failures
    assert (failure.client, failure.phase) == (f"node {node}", "hello")
    assert len(strategy.certificates) == NEW
    return strategy, failure


def test_two_nodes_claim_one_client(federation: Federation) -> None:
    federation.on(HELLO, CLIENTS[5], _says(CLIENTS[3]))
    _, failure = _lacks(federation, 105)
    assert failure.cause == f"another node is client '{CLIENTS[3]}' already"
    assert [e.client for e in federation.pool().entries()] == [
        client for client in CLIENTS[:UPSTREAM] if client != CLIENTS[5]
    ]
    assert (TRAIN, CLIENTS[5]) not in federation.clients.asked


@pytest.mark.parametrize(
    ("handler", "cause"),
    [
        (_error(1, "cannot load the app"), "^cannot load the app$"),
        (_raising, "division by zero"),
        (lambda _: RecordDict(), "its sender is not fedcert"),
        (_says("tiny-05", "boss"), r"it has no known role \('boss'\)"),
        (_says("tiny-05", ["new"]), "it has no known role"),
        (_says("../../evil"), r"'\.\./\.\./evil' cannot be a client's id"),
        (_says("/etc/passwd", "new"), "cannot be a client's id"),
        (_says(""), "cannot be a client's id"),
        (_says("a" * 300), "cannot be a client's id"),
        (_says("a\nb"), "cannot be a client's id"),
        (_says("tiny-05\n"), "cannot be a client's id"),
        (_says(["tiny-05"]), "cannot be a client's id"),
        (_says(None), "^None cannot be a client's id"),
        (_says(5), "^5 cannot be a client's id"),
    ],
)
def test_a_node_that_does_not_say_who_it_is(
    federation: Federation, handler: Handler, cause: str
) -> None:
    federation.on(HELLO, CLIENTS[5], handler)
    _, failure = _lacks(federation, 105)
    assert re.search(cause, failure.cause)
    assert failure.cause.isprintable()
    assert len(failure.cause) < 300


def test_a_node_that_does_not_answer_the_roll_call(tmp_path: Path) -> None:
    settings = tiny_settings(server__timeout=5.0)
    federation = Federation(tmp_path / "run", settings)
    lost = {(HELLO, CLIENTS[5])}
    federation.grid = LossyGrid(federation.clients, nodes=UPSTREAM + NEW, lost=lost)
    _, failure = _lacks(federation, 105)
    assert failure.cause == "no answer in time"
