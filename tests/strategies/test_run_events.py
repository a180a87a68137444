"""What a run of the server leaves in its event log, in order and without secrets."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Error, Message, RecordDict
from simulations.federation import CLIENTS, NEW, UPSTREAM, Federation

from fedcert.messages import ARRAYS, CERTIFY, TRAIN
from fedcert.runs.events import EVENTS_FILE, Event, read_events
from fedcert.runs.status import read_status
from fedcert.strategies.server_app import app

CONFIG: dict[str, str | int | float | bool] = {
    "scenario.name": "tiny_scenario:Tiny",
    "adapter.rank": 2,
    "training.steps": 10,
    "prior.kind": "gaussian",
    "certificate.candidates": 50,
    "certificate.support-size": 32,
    "server.min-pool": 10,
}
RUN = 4242


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path / "run")


def _serve(federation: Federation) -> list[Event]:
    config = CONFIG | {"output": str(federation.output)}
    app(federation.grid, Context(RUN, 1, {}, RecordDict(), config))
    return read_events(federation.output / EVENTS_FILE)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """Run once where nobody does anything out of the ordinary."""
    federation = Federation(tmp_path_factory.mktemp("events") / "run")
    _serve(federation)
    return federation


@pytest.fixture(scope="module")
def events(served: Federation) -> list[Event]:
    return read_events(served.output / EVENTS_FILE)


def _not_finite(federation: Federation, client: str) -> None:
    def upload(message: Message) -> Message:
        context = federation.grid._contexts[100 + CLIENTS.index(client)]
        reply = federation.clients.honest(message, context)
        arrays = {
            name: Array(np.full_like(array.numpy(), np.nan))
            for name, array in reply.content[ARRAYS].items()
        }
        reply.content[ARRAYS] = ArrayRecord(arrays)
        return reply

    federation.on(TRAIN, client, upload)


def _gone(message: Message) -> Message:
    return Message(Error(5, "node unavailable"), reply_to=message)


def test_a_run_is_logged_from_start_to_end_under_flowers_id(events: list[Event]) -> None:
    assert {event.run for event in events} == {str(RUN)}
    assert (events[0].kind, events[-1].kind) == ("run-started", "run-ended")
    counts = Counter(event.kind for event in events)
    assert counts["upload-accepted"] == UPSTREAM
    assert counts["seed-issued"] == counts["certificate-filed"] == NEW
    assert counts["bundle-published"] == 1
    assert counts["failure"] == counts["upload-refused"] == 0
    assert [event.time for event in events] == sorted(event.time for event in events)


def test_what_must_come_first_comes_first(events: list[Event]) -> None:
    kinds = [event.kind for event in events]

    def first(kind: str) -> int:
        return kinds.index(kind)

    assert first("upload-accepted") < first("bundle-published")
    assert first("bundle-published") < first("seed-issued") < first("certificate-filed")


def test_each_failure_is_logged_once_with_its_kind(federation: Federation) -> None:
    for client in CLIENTS[:2]:
        _not_finite(federation, client)
    federation.on(TRAIN, CLIENTS[2], _gone)
    federation.on(CERTIFY, CLIENTS[-1], _gone)
    events = _serve(federation)
    failed = [
        (event.kind, event.fields["client"], event.fields["phase"])
        for event in events
        if event.kind in ("failure", "upload-refused")
    ]
    assert sorted(failed) == [
        ("failure", CLIENTS[2], "training"),
        ("failure", CLIENTS[-1], "certification"),
        ("upload-refused", CLIENTS[0], "training"),
        ("upload-refused", CLIENTS[1], "training"),
    ]
    rows = read_status(federation.output).failures
    assert [(row["clients"], row["phase"]) for row in rows] == [
        (2, "training"),
        (1, "training"),
        (1, "certification"),
    ]
    assert "NaN" in rows[0]["cause"]


def test_a_run_that_cannot_do_its_job_says_so_in_the_log(federation: Federation) -> None:
    for client in CLIENTS[:UPSTREAM]:
        federation.on(TRAIN, client, _gone)
    with pytest.raises(Exception, match="too few for a prior"):
        _serve(federation)
    status = read_status(federation.output)
    assert (status.state, status.well) == ("failed", False)
    assert "too few for a prior" in status.cause
    [row] = status.failures
    assert (row["clients"], row["cause"]) == (UPSTREAM, "node unavailable")


def test_no_seed_nonce_or_key_is_in_the_log(served: Federation, events: list[Event]) -> None:
    text = (served.output / EVENTS_FILE).read_text(encoding="utf-8")
    certificates = list((served.output / "certificates").glob("*.json"))
    assert len(certificates) == NEW
    secrets = {
        value
        for path in certificates
        for value in _long_strings(json.loads(path.read_text(encoding="utf-8")))
    }
    # What may be there: what the bundle and the commitments are called.
    allowed = {
        event.fields[name]
        for event in events
        for name in ("digest", "commitment")
        if name in event.fields
    }
    assert secrets - allowed
    assert not [secret for secret in secrets - allowed if secret in text]


def _long_strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value] if len(value) >= 32 and " " not in value else []
    if isinstance(value, dict):
        return [text for item in value.values() for text in _long_strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in _long_strings(item)]
    return []


def test_a_second_run_in_the_folder_is_another_one_in_the_log(
    served: Federation, tmp_path: Path
) -> None:
    again = Federation(Path(shutil.copytree(served.output, tmp_path / "run")))
    config = CONFIG | {"output": str(again.output)}
    app(again.grid, Context(RUN + 1, 1, {}, RecordDict(), config))
    status = read_status(again.output)
    assert (status.run, status.runs, status.state) == (str(RUN + 1), 2, "finished")
    assert status.pool == UPSTREAM
    kinds = [e.kind for e in read_events(again.output / EVENTS_FILE, run=status.run)]
    assert "upload-accepted" not in kinds
