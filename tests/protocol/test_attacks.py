"""What a dishonest client or server might try, step by step, and what comes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcert.canonical import canonical_json
from fedcert.certificates import verify_record
from fedcert.certificates.wording import TEMPLATES
from fedcert.data import Examples
from fedcert.errors import ProtocolError, RefusalError
from fedcert.protocol.authority import SeedAuthority
from fedcert.protocol.commitment import Commitment
from fedcert.protocol.device import DeviceState
from fedcert.protocol.history import History
from fedcert.protocol.log import Entry, ServerLog, read_log
from fedcert.protocol.seeds import SeedGrant
from fedcert.protocol.witness import (
    Countersignature,
    check_log,
    check_opening,
    check_server,
    check_witness,
)
from fedcert.records.signing import public_hex, sign

from .conftest import (
    ALICE,
    BUNDLE,
    MALLORY,
    OTHER_BUNDLE,
    RECIPES,
    SERVER,
    certify,
    commit,
    draw,
    shuffled,
)


def _log(tmp_path: Path) -> Path:
    return tmp_path / "server" / "log.jsonl"


# Shopping for seeds


def test_reseeding_asking_again_gives_the_same_seed(
    server: SeedAuthority, device: DeviceState
) -> None:
    made = commit(device, draw(30))
    assert len({server.issue(made).seed for _ in range(20)}) == 1
    assert server.history.next_attempt("alice") == 2


def test_reseeding_by_choosing_ones_own_seed_does_not_verify(
    server: SeedAuthority, device: DeviceState
) -> None:
    grant = server.issue(commit(device, draw(30)))
    chosen = certify_anyway(grant, seed="ab" * 32)
    assert [c.name for c in verify_record(chosen).failures] == ["witness"]
    with pytest.raises(ProtocolError, match="does not verify"):
        server.countersign(chosen)


def test_recommitting_twenty_reshuffles_is_one_commitment(
    server: SeedAuthority, device: DeviceState
) -> None:
    examples = draw(30)
    seeds = {server.issue(commit(device, shuffled(examples, i))).seed for i in range(20)}
    assert len(seeds) == 1


def test_recommitting_with_fresh_salts_is_paid_for(
    server: SeedAuthority, device: DeviceState
) -> None:
    examples = draw(30)
    grants = [
        server.issue(commit(device, shuffled(examples, i), retry=True)) for i in range(20)
    ]
    assert [grant.receipt.attempt for grant in grants] == list(range(1, 21))
    assert len({grant.seed for grant in grants}) == 20
    assert sum(Fraction(grant.recipe.delta) for grant in grants) <= Fraction(0.05)
    assert grants[-1].recipe.delta < 0.05 / 1000


def test_taking_the_delta_of_another_attempt_does_not_verify(
    server: SeedAuthority, device: DeviceState
) -> None:
    server.issue(commit(device, draw(30)))
    second = server.issue(commit(device, draw(30), retry=True))
    generous = replace(second.recipe, delta=0.045)
    forged = certify_anyway(second, recipe=generous)
    assert "witness" in [c.name for c in verify_record(forged).failures]
    renumbered = replace(second.receipt, attempt=1)
    forged = certify_anyway(second, recipe=generous, protocol=renumbered)
    assert "witness" in [c.name for c in verify_record(forged).failures]


def test_retrying_after_an_aborted_attempt_is_the_second_attempt(
    server: SeedAuthority, device: DeviceState
) -> None:
    examples = draw(30)
    made = commit(device, examples)
    server.issue(made)
    server.abort(made.root, "the certificate was not good enough")
    assert server.issue(commit(device, examples, retry=True)).receipt.attempt == 2


@pytest.mark.parametrize("bundle", [BUNDLE, OTHER_BUNDLE], ids=["same bundle", "other bundle"])
@pytest.mark.parametrize("key", [SERVER, MALLORY], ids=["same server", "other server"])
def test_a_log_that_begins_anew_gives_no_second_first_attempt(
    server: SeedAuthority,
    device: DeviceState,
    tmp_path: Path,
    bundle: str,
    key: Ed25519PrivateKey,
) -> None:
    examples = draw(30)
    first = server.issue(commit(device, examples))
    device.accept(first, examples, bundle=BUNDLE, client="alice")
    # Its state folder was lost, or the same examples are taken to another federation.
    anew = SeedAuthority(tmp_path / "anew", key=key)
    anew.publish(bundle, RECIPES)
    second = anew.issue(commit(device, examples, bundle=bundle))
    assert (first.receipt.attempt, second.receipt.attempt) == (1, 1)
    assert first.seed != second.seed
    with pytest.raises(RefusalError, match="had their attempt 1 already, with another seed"):
        device.accept(second, examples, bundle=bundle, client="alice")
    # What they had holds, and the attempts that follow it are as good as ever.
    device.accept(first, examples, bundle=BUNDLE, client="alice")
    third = anew.issue(commit(device, examples, bundle=bundle, retry=True))
    device.accept(third, examples, bundle=bundle, client="alice")
    assert Fraction(first.recipe.delta) + Fraction(third.recipe.delta) <= Fraction(0.05)
    fresh = draw(30, seed=8)
    made = commit(DeviceState(tmp_path / "alice"), fresh, bundle=bundle)
    device.accept(anew.issue(made), fresh, bundle=bundle, client="alice")


@pytest.mark.parametrize(
    "other",
    [
        lambda e: e.take(slice(1, None)),  # dropped the one that was wrong
        lambda e: Examples(
            np.concatenate([e.inputs, draw(5, seed=9).inputs]),
            np.concatenate([e.labels, draw(5, seed=9).labels]),
        ),
        lambda e: Examples(e.inputs, np.where(np.arange(len(e)) == 3, 1 - e.labels, e.labels)),
        lambda e: e.take(np.array([*range(len(e)), 0])),
    ],
    ids=["subset", "superset", "relabeled", "repeated"],
)
def test_a_retry_with_nearly_the_same_examples_is_refused_as_spent(
    device: DeviceState, other: Callable[[Examples], Examples]
) -> None:
    examples = draw(30)
    commit(device, examples)
    with pytest.raises(RefusalError, match=r"are already spent on: a certificate"):
        commit(device, other(examples), retry=True)
    assert len(list(device._openings.iterdir())) == 1


def test_knowing_the_nonce_of_an_open_bundle_would_take_the_servers_file(
    server: SeedAuthority, device: DeviceState, tmp_path: Path
) -> None:
    grant = server.issue(commit(device, draw(30)))
    server.countersign(certify(grant))
    nonce = server._nonce(BUNDLE)
    published = _log(tmp_path).read_text() + json.dumps(grant.to_object())
    assert nonce not in published
    server.close(BUNDLE)
    assert nonce in _log(tmp_path).read_text()
    with pytest.raises(ProtocolError, match="is closed"):
        server.issue(commit(device, draw(30, seed=4)))


# After the commitment


@pytest.mark.parametrize("dropped", [0, 17])
def test_dropping_examples_after_the_commitment(
    server: SeedAuthority, device: DeviceState, dropped: int
) -> None:
    examples = draw(30)
    grant = server.issue(commit(device, examples))
    rest = examples.take(np.array([i for i in range(30) if i != dropped]))
    with pytest.raises(ProtocolError, match="29 examples do not fit the commitment to 30"):
        device.accept(grant, rest, bundle=BUNDLE, client="alice")
    swapped = examples.take(np.array([*(i for i in range(30) if i != dropped), 5]))
    with pytest.raises(ProtocolError, match="not the examples that were committed to"):
        device.accept(grant, swapped, bundle=BUNDLE, client="alice")


def test_an_opening_shows_a_third_party_which_examples_were_committed(
    server: SeedAuthority, device: DeviceState
) -> None:
    examples = draw(30)
    grant = server.issue(commit(device, examples))
    certificate, opening = certify(grant), device.opening(grant.receipt.commitment)
    assert opening is not None
    assert check_opening(certificate, opening, shuffled(examples)).passed
    relabeled = Examples(examples.inputs, 1 - examples.labels)
    assert not check_opening(certificate, opening, relabeled).passed
    retried = commit(device, examples, retry=True)
    other = device.opening(retried.root)
    assert other is not None
    assert not check_opening(certificate, other, examples).passed
    assert certificate.protocol is not None
    none = replace(certificate, protocol=replace(certificate.protocol, attempt=0))
    assert not check_opening(none, opening, examples).passed


def test_reordering_examples_after_the_commitment_changes_nothing(
    server: SeedAuthority, device: DeviceState
) -> None:
    examples = draw(30)
    grant = server.issue(commit(device, examples))
    device.accept(grant, shuffled(examples), bundle=BUNDLE, client="alice")


def test_one_seed_gives_one_certificate(server: SeedAuthority, device: DeviceState) -> None:
    grant = server.issue(commit(device, draw(30)))
    server.countersign(certify(grant, errors=3))
    with pytest.raises(ProtocolError, match="has another certificate already"):
        server.countersign(certify(grant, errors=0))


def test_swapping_the_adapter_is_another_certificate(
    server: SeedAuthority, device: DeviceState
) -> None:
    grant = server.issue(commit(device, draw(30)))
    certificate = certify(grant)
    witness = server.countersign(certificate)
    swapped = certify(
        grant, digests=replace(certificate.digests, adapter="ff" * 32)
    )  # signed anew by the client
    assert verify_record(swapped).passed  # the adapter folder and the bundle tell
    assert not check_witness(swapped, witness).passed
    with pytest.raises(ProtocolError, match="has another certificate already"):
        server.countersign(swapped)


# Replays


def test_replaying_another_clients_commitment(
    server: SeedAuthority, device: DeviceState, tmp_path: Path
) -> None:
    made = commit(device, draw(30))
    grant = server.issue(made)
    stolen = replace(made, client="mallory", public_key=public_hex(MALLORY))
    with pytest.raises(ProtocolError, match="changed after signing"):
        server.issue(stolen)
    resigned = stolen.signed(MALLORY)
    with pytest.raises(ProtocolError, match="was committed before, with other words"):
        server.issue(resigned)
    mallory = DeviceState(tmp_path / "mallory")
    with pytest.raises(ProtocolError, match="belongs to another client"):
        mallory.accept(grant, draw(30), bundle=BUNDLE, client="mallory")


def test_replaying_the_commitment_of_another_bundle(
    server: SeedAuthority, device: DeviceState
) -> None:
    examples = draw(30)
    made = commit(device, examples)
    grant = server.issue(made)
    server.publish(OTHER_BUNDLE, RECIPES)
    moved = replace(made, bundle=OTHER_BUNDLE)
    moved = moved.signed(ALICE)
    with pytest.raises(ProtocolError, match="was committed before, with other words"):
        server.issue(moved)
    with pytest.raises(ProtocolError, match="issued for the bundle"):
        device.accept(grant, examples, bundle=OTHER_BUNDLE, client="alice")
    with pytest.raises(ProtocolError, match="has not published"):
        server.issue(commit(device, examples, bundle="b7" * 32))


def test_a_recipe_that_the_bundle_does_not_prescribe(
    server: SeedAuthority, device: DeviceState
) -> None:
    examples = draw(30)
    easier = replace(RECIPES.recipe_for(30), candidates=1)
    with pytest.raises(ProtocolError, match="prescribes another recipe for n = 30"):
        server.issue(commit(device, examples, recipe=easier))


def test_enrolling_under_a_second_name(server: SeedAuthority, tmp_path: Path) -> None:
    server.issue(commit(DeviceState(tmp_path / "a"), draw(30)))
    with pytest.raises(ProtocolError, match="an enrolled client has one name"):
        server.issue(commit(DeviceState(tmp_path / "b"), draw(30), client="alice-2"))
    with pytest.raises(ProtocolError, match="'alice' is not enrolled with the key"):
        server.issue(commit(DeviceState(tmp_path / "c"), draw(30), key=MALLORY))


def test_replaying_another_clients_certificate(
    server: SeedAuthority, device: DeviceState
) -> None:
    certificate = certify(server.issue(commit(device, draw(30))))
    witness = server.countersign(certificate)
    stolen = replace(certificate, client="mallory", signature=replace(
        certificate.signature, public_key=public_hex(MALLORY)))  # fmt: skip
    stolen = replace(stolen, signature=replace(
        stolen.signature, value=sign(MALLORY, stolen.payload())))  # fmt: skip
    assert [c.name for c in verify_record(stolen).failures] == ["witness"]
    assert not check_witness(stolen, witness).passed
    with pytest.raises(ProtocolError, match="does not verify"):
        server.countersign(stolen)


# Forged servers and logs


def test_a_forged_server_signature(
    server: SeedAuthority, device: DeviceState, tmp_path: Path
) -> None:
    examples = draw(30)
    made = commit(device, examples)
    grant = server.issue(made)
    forged = SeedGrant.make(made, attempt=1, nonce="00" * 32, key=MALLORY)
    with pytest.raises(ProtocolError, match="not from"):
        device.accept(forged, examples, bundle=BUNDLE, client="alice", server=server.public_key)
    claimed = replace(forged, receipt=replace(forged.receipt, server=server.public_key))
    with pytest.raises(ProtocolError, match="the seed is forged or damaged"):
        device.accept(claimed, examples, bundle=BUNDLE, client="alice")
    by_mallory = certify(forged)
    assert not check_server(by_mallory, server.public_key).passed
    with pytest.raises(ProtocolError, match="was not issued by this server"):
        server.countersign(by_mallory)
    certificate = certify(grant)
    witness = server.countersign(certificate)
    for change in ({"position": 1}, {"server": public_hex(MALLORY)}, {"entry": "00" * 32}):
        assert not check_witness(certificate, replace(witness, **change)).passed  # type: ignore[arg-type]


def test_a_truncated_log(server: SeedAuthority, device: DeviceState, tmp_path: Path) -> None:
    certificate = certify(server.issue(commit(device, draw(30))))
    witness = server.countersign(certificate)
    path = _log(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    # A shorter log is whole in itself; the countersignature shows what is missing.
    shorter = read_log(path, server.public_key)
    failed = [check.name for check in check_log(certificate, shorter, witness)
              if not check.passed]  # fmt: skip
    assert failed == ["logged"]
    # The server itself will not go on from it: attempts would count anew.
    with pytest.raises(ProtocolError, match="cut short"):
        SeedAuthority(tmp_path / "server", key=SERVER)
    with pytest.raises(ProtocolError, match="cut short while it was in use"):
        server.issue(commit(device, draw(30), retry=True))
    path.write_bytes(whole[:-5])
    with pytest.raises(ProtocolError, match="ends in the middle of an entry"):
        read_log(path, server.public_key)


def test_a_log_that_was_rewritten_after_a_countersignature(
    server: SeedAuthority, device: DeviceState, tmp_path: Path
) -> None:
    certificate = certify(server.issue(commit(device, draw(30))))
    witness = server.countersign(certificate)
    # The server writes itself another past, in which somebody else came first.
    second = SeedAuthority(tmp_path / "second", key=SERVER, nonce=server._nonce)
    second.publish(BUNDLE, RECIPES)
    bob = DeviceState(tmp_path / "bob")
    second.issue(commit(bob, draw(30, seed=5), client="bob", key=MALLORY))
    second.issue(commit(device, draw(30)))
    second.countersign(certificate)
    entries = read_log(tmp_path / "second" / "log.jsonl", server.public_key)
    failed = [c.name for c in check_log(certificate, entries, witness) if not c.passed]
    assert failed == ["log entry"]


@pytest.mark.parametrize("edit", ["body", "removed", "swapped", "resigned"])
def test_an_edited_log(
    server: SeedAuthority, device: DeviceState, tmp_path: Path, edit: str
) -> None:
    server.issue(commit(device, draw(30)))
    path = _log(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    if edit == "removed":
        del lines[2]
    elif edit == "swapped":
        lines[1], lines[2] = lines[2], lines[1]
    else:
        entry = json.loads(lines[2])
        entry["body"]["client"] = "mallory"
        if edit == "resigned":  # by the server's own key: the chain still tells
            entry = Entry.from_object(entry).signed(SERVER).to_object()
        lines[2] = canonical_json(entry) + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(ProtocolError, match=r"was edited|was changed"):
        read_log(path, server.public_key)
    with pytest.raises(ProtocolError, match=r"was edited|was changed"):
        SeedAuthority(tmp_path / "server", key=SERVER)


def test_a_server_that_chose_the_seed_is_found_out_when_it_closes_the_bundle(
    server: SeedAuthority, device: DeviceState, tmp_path: Path
) -> None:
    made = commit(device, draw(30))
    grant = server.issue(made)
    entries = read_log(_log(tmp_path), server.public_key)
    log = ServerLog(tmp_path / "cheating" / "log.jsonl", SERVER)
    with log.writing():
        for entry in entries:
            body = dict(entry.body)
            if entry.kind == "seed":
                body["seed"] = "ee" * 32
            log.append(entry.kind, body)
        log.append("closed", {"bundle": BUNDLE, "nonce": server._nonce(BUNDLE)})
    assert grant.seed != "ee" * 32
    with pytest.raises(ProtocolError, match="does not follow from the nonce: it was chosen"):
        History.of(read_log(log.path, server.public_key))


def test_a_server_that_issues_a_second_seed_is_found_out(
    server: SeedAuthority, device: DeviceState, tmp_path: Path
) -> None:
    server.issue(commit(device, draw(30)))
    log = ServerLog(_log(tmp_path), SERVER)
    with log.writing():
        body = dict(log.entries[-1].body)
        log.append("seed", body | {"attempt": 2, "relation": "retry", "seed": "ee" * 32})
    with pytest.raises(ProtocolError, match="a second seed for one commitment"):
        History.of(read_log(log.path, server.public_key))


@pytest.mark.parametrize("what", ["number", "seed", "bundle", "size"])
def test_a_seed_that_was_issued_beside_the_log_is_found_out(
    what: str, server: SeedAuthority, device: DeviceState
) -> None:
    """A server signs any seed as a first attempt, and logs the certificate at another one."""
    server.publish(OTHER_BUNDLE, RECIPES)
    made = commit(device, draw(30))
    server.issue(made)
    if what == "number":
        made = commit(device, draw(30), retry=True)
        server.issue(made)
    logged = server.history.attempts[made.root]
    beside = replace(
        SeedGrant.make(made, attempt=1, nonce="00" * 32, key=SERVER),
        seed="ab" * 32 if what == "seed" else logged.seed,
        bundle=OTHER_BUNDLE if what == "bundle" else made.bundle,
        support_size=29 if what == "size" else made.support_size,
    ).signed(SERVER)
    forged = certify(beside, errors=1)
    server._write("certificate", {**server._outcome(logged), "certificate": forged.digest})
    logged = server.history.attempts[made.root]
    entries = server._log.entries
    assert logged.position is not None
    witness = replace(
        Countersignature.make(logged, entries[logged.position], SERVER),
        attempt=1,
        seed=beside.seed,
    ).signed(SERVER)
    server.close(BUNDLE)
    # Every signature is genuine, and the log keeps to the rules.
    assert verify_record(forged).passed
    assert check_witness(forged, witness).passed
    History.of(entries)
    checks = check_log(forged, entries, witness)
    assert [check.name for check in checks if not check.passed] == ["logged"]


def test_a_countersignature_for_another_entry_is_found_out(
    server: SeedAuthority, device: DeviceState
) -> None:
    grant = server.issue(commit(device, draw(30)))
    made = certify(grant, errors=1)
    witness = server.countersign(made)
    assert all(check.passed for check in check_log(made, server._log.entries, witness))
    first = replace(witness, position=0, entry=server._log.entries[0].digest).signed(SERVER)
    checks = check_log(made, server._log.entries, first)
    assert [check.name for check in checks if not check.passed] == ["log entry"]


def test_an_abortion_of_another_attempt_is_found_out(
    server: SeedAuthority, device: DeviceState, tmp_path: Path
) -> None:
    made = commit(device, draw(30))
    server.issue(made)
    server.abort(made.root, "lost")
    entries = read_log(_log(tmp_path), server.public_key)
    assert History.of(entries).attempts_of("alice")[0].aborted == "lost"
    for name, change in (("other", {"client": "bob"}), ("second", {})):
        log = ServerLog(tmp_path / name / "log.jsonl", SERVER)
        with log.writing():
            for entry in entries[:-1] if change else entries:
                log.append(entry.kind, dict(entry.body))
            log.append("aborted", dict(entries[-1].body) | change)
        with pytest.raises(ProtocolError, match=r"was aborted before|another client's"):
            History.of(read_log(log.path, server.public_key))


# Spent examples


def test_certifying_a_relabeled_spent_example(device: DeviceState) -> None:
    examples = draw(30)
    device.spent.mark(examples.take(slice(3)), "training an upload")
    relabeled = Examples(examples.inputs, 1 - examples.labels)
    expected = "3 of the 30 examples are already spent on: training an upload"
    with pytest.raises(RefusalError, match=expected):
        commit(device, relabeled)


def test_an_upload_that_overlaps_the_certifying_examples(device: DeviceState) -> None:
    upload, support = draw(40), draw(30, seed=1)
    device.spent.mark(upload, "training an upload")
    mixed = Examples(
        np.concatenate([support.inputs, upload.inputs[:1]]),
        np.concatenate([support.labels, upload.labels[:1]]),
    )
    with pytest.raises(RefusalError, match="1 of the 31 examples are already spent"):
        commit(device, mixed)
    commit(device, support)


def certify_anyway(grant: SeedGrant, **changes: object):  # type: ignore[no-untyped-def]
    """Sign what `issue` would refuse to sign."""
    honest = certify(grant)
    recipe = changes.get("recipe", grant.recipe)
    seed = changes.get("seed", grant.seed)
    receipt = changes.get("protocol", grant.receipt)
    bound = recipe.bound(honest.errors, honest.certified_on)  # type: ignore[attr-defined]
    witness = receipt.witness(recipe)  # type: ignore[attr-defined]
    forged = replace(
        honest,
        recipe=recipe,  # type: ignore[arg-type]
        delta=recipe.delta,  # type: ignore[attr-defined]
        bound=bound,
        ledger=recipe.ledger(honest.support_size),  # type: ignore[attr-defined]
        candidate=replace(honest.candidate, seed=seed),  # type: ignore[arg-type]
        witness=witness,
        protocol=receipt,  # type: ignore[arg-type]
    )
    return replace(forged, statement=TEMPLATES[0].statement(forged)).signed(ALICE)


def test_commitments_of_a_stranger_are_read_strictly(device: DeviceState) -> None:
    made = commit(device, draw(30))
    assert Commitment.from_object(made.to_object()) == made
