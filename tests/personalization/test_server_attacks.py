"""Servers of one's own, and examples that were not the committed ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_models import Family

from fedcert.adapters import AdaptedModel
from fedcert.bundles import Bundle
from fedcert.certificates import VerificationReport
from fedcert.errors import BundleError, ProtocolError, SettingsError
from fedcert.personalization import Personalization, commit_to, personalize
from fedcert.protocol.authority import SeedAuthority
from fedcert.protocol.device import DeviceState
from fedcert.protocol.log import read_log
from fedcert.protocol.seeds import SeedGrant
from fedcert.verification import verify
from personalization.conftest import KEY, make_bundle, shuffled, solvable_examples

N = 24


class World:
    """A bundle that names its server, a client, and a server of the client's own."""

    def __init__(self, family: Family, model: AdaptedModel, folder: Path) -> None:
        self.folder, self.model = folder, model
        self.server = SeedAuthority(folder / "server")
        self.own = SeedAuthority(folder / "own")
        self.unnamed: Bundle = make_bundle(family)
        self.bundle = replace(self.unnamed, server=self.server.public_key)
        for authority in (self.server, self.own):
            for bundle in (self.bundle, self.unnamed):
                authority.publish(bundle.digest, bundle.recipes)
        self.examples = solvable_examples(family, self.bundle, model, 2 * N)
        self.committed = self.examples.take(slice(0, N))
        self.state = DeviceState(folder / "state")

    def certify(
        self, server: SeedAuthority, bundle: Bundle, examples: Any = None
    ) -> Personalization:
        options: dict[str, Any] = {"client": "c", "key": KEY, "state": self.state}
        grant = server.issue(commit_to(bundle, self.committed, **options))
        examples = self.committed if examples is None else examples
        return personalize(
            bundle, self.model, examples, folder=self.folder / "client", grant=grant, **options
        )


@pytest.fixture
def world(vit: Family, model: AdaptedModel, tmp_path: Path) -> World:
    return World(vit, model, tmp_path)


def _failed(report: VerificationReport) -> list[str]:
    return [check.name for check in report.failures]


def _careless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the device of a client who changes the software: it accepts every seed."""

    def accept(state: DeviceState, grant: SeedGrant, *_args: Any, **_options: Any) -> Any:
        return state.opening(grant.receipt.commitment)

    monkeypatch.setattr(DeviceState, "accept", accept)


def test_a_server_of_ones_own_is_refused_where_the_bundle_names_its_server(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = world.certify(world.server, world.bundle)
    report = verify(done.certificate, bundle=world.bundle)
    assert _failed(report) == []
    assert "server-key" not in {item.name for item in report.unchecked}

    with pytest.raises(ProtocolError, match="server"):
        world.certify(world.own, world.bundle)
    _careless(monkeypatch)
    forged = world.certify(world.own, world.bundle).certificate
    witness = world.own.countersign(forged)
    world.own.close(world.bundle.digest)
    log = read_log(world.folder / "own" / "log.jsonl", world.own.public_key)
    report = verify(forged, bundle=world.bundle, witness=witness, log=log)
    assert _failed(report) == ["bundle's server"]
    assert world.own.public_key in report.failures[0].detail


def test_where_the_bundle_names_none_nobody_is_told_that_the_server_was_checked(
    world: World,
) -> None:
    forged = world.certify(world.own, world.unnamed).certificate
    report = verify(forged, bundle=world.unnamed, witness=world.own.countersign(forged))
    assert report.passed
    [item] = [item for item in report.unchecked if item.name == "server-key"]
    assert item.option == "--server-key"
    assert world.own.public_key in item.detail
    expected = world.server.public_key
    assert _failed(verify(forged, bundle=world.unnamed, server_key=expected)) == ["server"]


def test_examples_that_were_taken_after_the_seed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything fits but the commitment, and only the salts can show that."""
    _careless(monkeypatch)
    other = world.examples.take(slice(N, None))
    done = world.certify(world.server, world.bundle, other)
    given: dict[str, Any] = {
        "bundle": world.bundle,
        "adapter": done.adapter,
        "data": shuffled(other, 1),
        "base": world.model.base,
        "server_key": world.server.public_key,
        "witness": world.server.countersign(done.certificate),
        "log": read_log(world.folder / "server" / "log.jsonl", world.server.public_key),
    }
    report = verify(done.certificate, **given)
    assert report.passed
    assert "opening" in {item.name for item in report.unchecked}
    receipt = done.certificate.protocol
    assert receipt is not None
    opening = world.state.opening(receipt.commitment)
    report = verify(done.certificate, **given, opening=opening)
    assert _failed(report) == ["opening"]
    del given["data"]
    with pytest.raises(SettingsError, match="opening show nothing without the data"):
        verify(done.certificate, **given, opening=opening)
    assert "opening" not in {item.name for item in report.unchecked}


def test_the_server_is_part_of_the_bundle(world: World, tmp_path: Path) -> None:
    assert world.bundle.digest != world.unnamed.digest
    assert "server" not in world.unnamed.manifest()
    world.bundle.save(tmp_path / "bundle")
    assert Bundle.load(tmp_path / "bundle").server == world.server.public_key
    strange = replace(world.bundle, server="nobody")
    with pytest.raises(BundleError, match=r"bundle\.server must be 64 lower-case hexadecimal"):
        Bundle.from_parts(strange.manifest_bytes(), strange.tensors())
