"""Handing a certificate back: the server files its clients' own certificates, each once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults.device_rig import CLIENT, Parties, make_bundle, signed_anew

from fedcert.bundles import Bundle
from fedcert.certificates import Certificate
from fedcert.errors import CertificateError, FedcertError, ProtocolError
from fedcert.protocol.authority import SeedAuthority
from fedcert.protocol.log import read_log
from fedcert.protocol.witness import check_log, check_witness
from fedcert.records import LARGEST
from fedcert.records.signing import generate_key, public_hex
from fedcert.verification.submissions import Submission, accept


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    """A device with a witnessed certificate that the server has not seen."""
    parties = Parties.make(tmp_path_factory.mktemp("certified"))
    parties.certify()
    return parties


@pytest.fixture
def parties(certified: Parties, tmp_path: Path) -> Parties:
    return Parties(Path(shutil.copytree(certified.folder, tmp_path / "parties")))


@pytest.fixture
def bundles(certified: Parties) -> dict[str, Bundle]:
    bundle = Bundle.load(certified.bundle)
    return {bundle.digest: bundle}


def _own(parties: Parties) -> Submission:
    certificate = Certificate.read(parties.certificate)
    return Submission.make(certificate, parties.key())


def _refused(
    parties: Parties, bundles: dict[str, Bundle], given: Submission, text: str
) -> None:
    """A refusal changes nothing on the server."""
    log = (parties.server / "log.jsonl").read_bytes()
    with pytest.raises((CertificateError, ProtocolError), match=text):
        accept(given, SeedAuthority(parties.server), bundles, parties.server)
    assert (parties.server / "log.jsonl").read_bytes() == log
    assert not (parties.server / "certificates").exists()


def _signed_anew(parties: Parties, **changes: Any) -> Submission:
    """The client's software was changed: it signs whatever it likes with its own key."""
    forged = signed_anew(Certificate.read(parties.certificate), parties.key(), **changes)
    return Submission.make(forged, parties.key())


def test_from_the_device_to_the_log(parties: Parties, bundles: dict[str, Bundle]) -> None:
    path = parties.folder / "submission.json"
    _own(parties).write(path)
    filed = accept(
        Submission.read(path), SeedAuthority(parties.server), bundles, parties.server
    )
    certificate = Certificate.read(parties.certificate)
    assert filed.certificate.read_bytes() == parties.certificate.read_bytes()
    assert filed.certificate.name == filed.witness.name == f"{certificate.digest}.json"
    assert check_witness(certificate, filed.countersignature).passed
    entries = read_log(parties.server / "log.jsonl", filed.countersignature.server)
    checks = check_log(certificate, entries, filed.countersignature)
    assert all(check.passed for check in checks)
    assert not filed.repeated


def test_the_same_certificate_is_logged_once(
    parties: Parties, bundles: dict[str, Bundle]
) -> None:
    """An answer may get lost: handing it in again costs nothing and changes nothing."""
    authority = SeedAuthority(parties.server)
    first = accept(_own(parties), authority, bundles, parties.server)
    log = (parties.server / "log.jsonl").read_bytes()
    first.witness.unlink()  # the server died between its log and its files
    for _ in range(3):
        again = accept(_own(parties), SeedAuthority(parties.server), bundles, parties.server)
        assert again.repeated
        assert again.countersignature == first.countersignature
    assert (parties.server / "log.jsonl").read_bytes() == log
    assert first.witness.exists()


def test_another_certificate_of_the_same_seed_is_refused(
    parties: Parties, bundles: dict[str, Bundle]
) -> None:
    accept(_own(parties), SeedAuthority(parties.server), bundles, parties.server)
    own = Certificate.read(parties.certificate)
    second = _signed_anew(parties, errors=own.errors + 1)
    with pytest.raises(ProtocolError, match="one seed gives one certificate"):
        accept(second, SeedAuthority(parties.server), bundles, parties.server)
    assert len(list((parties.server / "certificates").iterdir())) == 1


def test_a_changed_seed_is_refused(parties: Parties, bundles: dict[str, Bundle]) -> None:
    with pytest.raises(CertificateError, match="was not issued for this by the server"):
        _signed_anew(parties, seed="00" * 32)
    own = _own(parties)
    content = own.to_object()
    content["certificate"]["candidate"]["seed"] = "00" * 32
    path = parties.folder / "changed.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ProtocolError, match="was changed after signing"):
        Submission.read(path)
    changed = replace(
        own.certificate, candidate=replace(own.certificate.candidate, seed="00" * 32)
    )
    _refused(parties, bundles, replace(own, certificate=changed), "does not verify")


def test_the_seed_of_another_server_is_refused(
    parties: Parties, bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    other = Parties(Path(shutil.copytree(parties.folder, tmp_path / "other")))
    shutil.rmtree(other.server)
    shutil.rmtree(other.state)
    other.certify()
    _refused(parties, bundles, _own(other), "seed was not issued by this server")


@pytest.mark.parametrize("digest", ["adapter_vector", "prior", "labels"])
def test_swapped_data_is_refused(
    parties: Parties, bundles: dict[str, Bundle], digest: str
) -> None:
    """The counts of one certificate with the adapter, prior, or labels of another."""
    own = Certificate.read(parties.certificate)
    [bundle] = bundles.values()
    other = bundle.prior.sample(own.candidate.seed, start=own.candidate.index + 1, count=1)[0]
    change, text = {
        "adapter_vector": ({"vector": other}, "the adapter is not candidate"),
        "prior": ({"digests": replace(own.digests, prior="00" * 32)}, "another prior"),
        "labels": ({"labels": own.labels[::-1]}, "another labels"),
    }[digest]
    _refused(parties, bundles, _signed_anew(parties, **change), text)  # type: ignore[arg-type]


def test_another_clients_certificate_is_refused(
    parties: Parties, bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    certificate, thief = Certificate.read(parties.certificate), generate_key()
    with pytest.raises(ProtocolError, match="signed with another key than yours"):
        Submission.make(certificate, thief)
    # A thief with changed software signs all the same, with the thief's key or name.
    stolen = _own(parties)
    for changes in ({"public_key": public_hex(thief)}, {"client": "thief"}):
        forged = replace(stolen, **changes)
        forged = forged.signed(thief)
        forged.write(tmp_path / "forged.json")
        with pytest.raises(ProtocolError, match=r"handed in the certificate|not signed by"):
            Submission.read(tmp_path / "forged.json")
    _refused(parties, bundles, replace(stolen, client="thief"), "'thief' is not enrolled here")
    _refused(
        parties,
        bundles,
        replace(stolen, public_key=public_hex(thief)),
        "'device' is enrolled with another key",
    )


def test_an_unknown_bundle_is_refused(
    parties: Parties, bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    _refused(parties, {}, _own(parties), "not among those at hand; give it with --bundle")
    other = Bundle.load(parties.bundle)
    foreign = replace(other, notes={"from": "elsewhere"})
    own = Certificate.read(parties.certificate)
    renamed = replace(own, digests=replace(own.digests, bundle=foreign.digest))
    given = replace(_own(parties), certificate=renamed)
    _refused(parties, bundles, given, "which this server never published")


def test_a_certificate_without_a_server_is_not_handed_in(parties: Parties) -> None:
    own = Certificate.read(parties.certificate)
    full = own.recipe.with_delta(0.05)
    alone = signed_anew(own, parties.key(), recipe=full, protocol=None)
    with pytest.raises(ProtocolError, match="no server issued this certificate's seed"):
        Submission.make(alone, parties.key())


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda c: c.update(extra=1), r"submission\.extra is not a known field"),
        (lambda c: c.pop("client"), r"submission\.client is missing"),
        (
            lambda c: c.update(format="fedcert.submission/2"),
            "format is 'fedcert.submission/2'; this version reads",
        ),
        (lambda c: c["certificate"].update(bound=0.001), "was changed after signing"),
        (lambda c: c.update(certificate=[]), "certificate must be an object"),
        (lambda c: c.update(signature="00" * 64), "was changed after signing"),
    ],
)
def test_a_damaged_submission_is_refused(
    parties: Parties, damage: Callable[[dict[str, Any]], object], text: str
) -> None:
    content = _own(parties).to_object()
    damage(content)
    path = parties.folder / "damaged.json"
    path.write_text(json.dumps(content))
    with pytest.raises(FedcertError, match=text):
        Submission.read(path)


def test_what_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(LARGEST + 1)  # takes no room on the disk
    with pytest.raises(ProtocolError, match=r"large\.json has more than 67,108,864 bytes"):
        Submission.read(path)


def test_it_holds_nothing_but_the_certificate(parties: Parties) -> None:
    content = _own(parties).to_object()
    assert set(content) == {"format", "client", "public_key", "certificate", "signature"}
    assert content["certificate"] == Certificate.read(parties.certificate).to_object()
    assert content["client"] == CLIENT


def test_the_rig_has_a_bundle_worth_searching(certified: Parties) -> None:
    """Otherwise all of the above would hold for a certificate that says nothing."""
    certificate = Certificate.read(certified.certificate)
    assert certificate.nonvacuous
    assert np.any(certificate.adapter_vector)
    assert make_bundle(certified.base).digest == Bundle.load(certified.bundle).digest
