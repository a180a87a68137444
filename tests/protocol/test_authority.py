"""The server: seeds, attempts, outcomes, and what is left after a crash."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from fedcert.certificates import verify_record
from fedcert.certificates.attempts import attempt_delta
from fedcert.errors import ProtocolError
from fedcert.protocol.authority import SeedAuthority
from fedcert.protocol.device import DeviceState
from fedcert.protocol.history import History
from fedcert.protocol.log import read_log
from fedcert.protocol.witness import check_log, check_server, check_witness

from .conftest import (
    BUNDLE,
    MALLORY,
    OTHER_BUNDLE,
    RECIPES,
    SERVER,
    certify,
    commit,
    draw,
)


def _kinds(server: SeedAuthority, folder: Path) -> list[str]:
    return [entry.kind for entry in read_log(folder / "log.jsonl", server.public_key)]


def test_one_attempt_from_commitment_to_countersignature(
    server: SeedAuthority, device: DeviceState, tmp_path: Path
) -> None:
    examples = draw(30)
    made = commit(device, examples)
    grant = server.issue(made)
    assert grant.receipt.attempt == 1
    assert grant.recipe.delta == 0.045
    device.accept(grant, examples, bundle=BUNDLE, client="alice", server=server.public_key)
    certificate = certify(grant)
    assert verify_record(certificate).passed
    assert certificate.delta == 0.045
    assert sum(entry.delta for entry in certificate.ledger) <= 0.045
    assert "unwitnessed" not in certificate.statement
    assert f"the server with the public key {server.public_key}" in certificate.statement
    assert "as attempt 1 of this client" in certificate.statement
    [left] = server.history.open_attempts()
    assert left.commitment == made
    witness = server.countersign(certificate)
    assert server.history.open_attempts() == []
    assert check_witness(certificate, witness).passed
    assert check_server(certificate, server.public_key).passed
    entries = read_log(tmp_path / "server" / "log.jsonl", server.public_key)
    assert all(check.passed for check in check_log(certificate, entries, witness))
    assert [e.kind for e in entries] == [
        "opened", "bundle", "enrolled", "commitment", "seed", "certificate",
    ]  # fmt: skip
    assert server.countersign(certificate) == witness


def test_the_log_holds_nothing_of_the_examples(
    server: SeedAuthority, device: DeviceState, tmp_path: Path
) -> None:
    examples = draw(30)
    made = commit(device, examples)
    server.issue(made)
    text = (tmp_path / "server" / "log.jsonl").read_text()
    opening = device.opening(made.root)
    assert opening is not None
    private = [salt.hex() for salt in opening.salts] + examples.input_digests("")
    assert not [word for word in private if word in text]
    assert server._nonce(BUNDLE) not in text


def test_attempts_count_across_bundles_and_restarts(
    server: SeedAuthority, device: DeviceState, tmp_path: Path
) -> None:
    examples = draw(30)
    server.issue(commit(device, examples))
    again = SeedAuthority(tmp_path / "server", key=SERVER)
    again.publish(OTHER_BUNDLE, RECIPES)
    second = again.issue(commit(device, examples, bundle=OTHER_BUNDLE))
    assert second.receipt.attempt == 2
    assert second.recipe.delta == attempt_delta(0.05, 2)
    third = again.issue(commit(device, draw(35, seed=1)))
    assert third.receipt.attempt == 3
    relations = [attempt.relation for attempt in again.history.attempts_of("alice")]
    assert relations == ["first", "retry", "fresh"]
    bob = DeviceState(tmp_path / "bob")
    other = again.issue(commit(bob, draw(30, seed=2), client="bob", key=MALLORY))
    assert other.receipt.attempt == 1


def test_nonces_and_keys_are_made_once_and_kept_private(
    tmp_path: Path, device: DeviceState
) -> None:
    folder = tmp_path / "fresh"
    made = commit(device, draw(30))
    one = SeedAuthority(folder)
    one.publish(BUNDLE, RECIPES)
    grant = one.issue(made)
    again = SeedAuthority(folder)
    again.publish(BUNDLE, RECIPES)
    assert again.issue(made) == grant
    for path in (folder / "server.key", folder / "nonces" / BUNDLE):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (folder / "nonces" / BUNDLE).unlink()
    with pytest.raises(ProtocolError, match="the nonce of the bundle b0b0b0b0b0b0 is missing"):
        again.issue(commit(device, draw(30), retry=True))


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    SeedAuthority(tmp_path)
    (tmp_path / "server.key").chmod(0o640)
    with pytest.raises(Exception, match=r"open to other users \(mode 640\)"):
        SeedAuthority(tmp_path)


def test_two_processes_take_turns(
    server: SeedAuthority, device: DeviceState, tmp_path: Path
) -> None:
    other = SeedAuthority(tmp_path / "server", key=SERVER)
    bob = DeviceState(tmp_path / "bob")
    made = commit(device, draw(30))
    grant = server.issue(made)
    assert other.issue(made) == grant
    assert other.issue(commit(bob, draw(30, 1), client="bob", key=MALLORY)).receipt.attempt == 1
    assert server.issue(commit(device, draw(30), retry=True)).receipt.attempt == 2
    assert other.history.next_attempt("alice") == 3


def test_a_closed_bundle_can_be_audited_and_gives_no_more_seeds(
    server: SeedAuthority, device: DeviceState, tmp_path: Path
) -> None:
    server.issue(commit(device, draw(30)))
    server.close(BUNDLE)
    entries = read_log(tmp_path / "server" / "log.jsonl", server.public_key)
    assert History.of(entries).bundles[BUNDLE].nonce == server._nonce(BUNDLE)
    with pytest.raises(ProtocolError, match="is closed: its nonce is public"):
        server.issue(commit(device, draw(30), retry=True))
    with pytest.raises(ProtocolError, match="closed already"):
        server.close(BUNDLE)


def test_a_server_that_enrolls_nobody_by_itself(device: DeviceState, tmp_path: Path) -> None:
    strict = SeedAuthority(tmp_path / "strict", key=SERVER, enroll_new=False)
    strict.publish(BUNDLE, RECIPES)
    made = commit(device, draw(30))
    with pytest.raises(ProtocolError, match="'alice' is not enrolled"):
        strict.issue(made)
    strict.enroll("alice", made.public_key)
    assert strict.issue(made).receipt.attempt == 1


# Crashes


class PowerCutError(Exception):
    pass


@pytest.mark.parametrize("kind", ["enrolled", "commitment", "seed"])
@pytest.mark.parametrize("when", ["before", "after", "torn"])
def test_a_crash_loses_nothing_and_counts_nothing_twice(
    server: SeedAuthority, device: DeviceState, tmp_path: Path, kind: str, when: str
) -> None:
    path = tmp_path / "server" / "log.jsonl"
    expected = SeedAuthority(tmp_path / "calm", key=SERVER, nonce=server._nonce)
    expected.publish(BUNDLE, RECIPES)
    made = commit(device, draw(30))
    original = server._log.append

    def append(wanted: str, body: Any) -> Any:
        if wanted != kind:
            return original(wanted, body)
        if when != "before":
            original(wanted, body)
        if when == "torn":
            content = path.read_bytes()
            path.write_bytes(content[:-20])
            # The head is written after the entry: a torn entry is not in it yet.
            last = json.loads(content.splitlines()[-2])
            entries = read_log_of(content, server)
            head = {"position": last["position"], "digest": entries[-2]}
            path.with_name("log.jsonl.head").write_text(json.dumps(head))
        raise PowerCutError

    server._log.append = append  # type: ignore[method-assign]
    with pytest.raises(PowerCutError):
        server.issue(made)
    again = SeedAuthority(tmp_path / "server", key=SERVER)
    grant = again.issue(made)
    assert grant == expected.issue(made)
    assert _kinds(again, tmp_path / "server") == _kinds(expected, tmp_path / "calm")
    assert again.history.next_attempt("alice") == 2


def read_log_of(content: bytes, server: SeedAuthority) -> list[str]:
    from fedcert.canonical import digest_json

    return [digest_json(json.loads(line)) for line in content.splitlines()]


def test_an_aborted_attempt_stays_counted_and_may_still_end_well(
    server: SeedAuthority, device: DeviceState
) -> None:
    made = commit(device, draw(30))
    grant = server.issue(made)
    server.abort(made.root, "out of memory")
    [attempt] = server.history.attempts_of("alice")
    assert (attempt.aborted, attempt.is_open) == ("out of memory", False)
    assert server.issue(made) == grant  # the same seed: nothing to choose
    server.countersign(certify(grant))
    with pytest.raises(ProtocolError, match="it was not aborted"):
        server.abort(made.root, "changed my mind")
    with pytest.raises(ProtocolError, match="no seed was issued"):
        server.abort("00" * 32, "never begun")


def test_simulated_servers_repeat_themselves(tmp_path: Path, device: DeviceState) -> None:
    made = commit(device, draw(30))
    grants = []
    for name in ("a", "b"):
        authority = SeedAuthority.simulated(tmp_path / name, 7)
        authority.publish(BUNDLE, RECIPES)
        grants.append(authority.issue(made))
    assert grants[0] == grants[1]
