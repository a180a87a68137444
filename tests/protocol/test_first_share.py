"""Which share the first attempt has is the bundle's word, and nobody's choice."""

from __future__ import annotations

import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from fedcert.certificates import Certificate, RecipeTable, verify_record
from fedcert.certificates.attempts import FIRST_SHARE
from fedcert.errors import ProtocolError, RefusalError
from fedcert.protocol.authority import SeedAuthority
from fedcert.protocol.commitment import Commitment
from fedcert.protocol.device import DeviceState
from fedcert.protocol.history import History
from fedcert.protocol.log import read_log
from fedcert.protocol.seeds import SeedGrant
from fedcert.protocol.witness import Countersignature, check_log, check_witness
from fedcert.records.signing import public_hex

from .conftest import BUNDLE, OTHER_BUNDLE, RECIPES, SERVER, certify, commit, draw
from .test_attacks import certify_anyway

BLESSED = Path(__file__).parent / "blessed"
"""Made before recipes said which share the first attempt has."""

NEW = RecipeTable(
    tuple((start, replace(recipe, first_share=FIRST_SHARE)) for start, recipe in RECIPES.rows)
)


@pytest.fixture
def both(server: SeedAuthority) -> SeedAuthority:
    """A server with a bundle of the old rule, `BUNDLE`, and one of the new."""
    server.publish(OTHER_BUNDLE, NEW)
    return server


def test_what_was_made_under_the_old_rule_still_verifies() -> None:
    commitment = Commitment.read(BLESSED / "commitment.json")
    grant = SeedGrant.read(BLESSED / "seed.json")
    grant.check(commitment, server=public_hex(SERVER))
    assert grant.recipe.delta == 0.045
    certificate = Certificate.read(BLESSED / "certificate.json")
    assert verify_record(certificate).passed
    witness = Countersignature.read(BLESSED / "witness.json")
    assert check_witness(certificate, witness).passed
    entries = read_log(BLESSED / "log.jsonl", public_hex(SERVER))
    assert all(check.passed for check in check_log(certificate, entries, witness))


def test_a_server_goes_on_from_a_log_of_the_old_rule(
    tmp_path: Path, device: DeviceState
) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    shutil.copy(BLESSED / "log.jsonl", folder)
    server = SeedAuthority(folder, key=SERVER, nonce=lambda _bundle: "ab" * 32)
    assert server.issue(Commitment.read(BLESSED / "commitment.json")) == SeedGrant.read(
        BLESSED / "seed.json"
    )
    server.publish(OTHER_BUNDLE, NEW)
    made = commit(device, draw(33, 5), bundle=OTHER_BUNDLE, recipe=NEW.recipe_for(33))
    grant = server.issue(made)
    assert grant.receipt.attempt == 3
    spent = [0.045, 0.1 * 0.6079271 * 0.05, grant.recipe.delta]
    assert grant.recipe.delta == pytest.approx(0.01 * 0.6079271 / 4 * 0.05)
    assert sum(spent) < 0.05


def test_the_bundle_s_rule_holds_for_its_attempts(
    both: SeedAuthority, device: DeviceState
) -> None:
    new = NEW.recipe_for(30)
    grants = [
        both.issue(commit(device, draw(30), bundle=OTHER_BUNDLE, recipe=new, retry=True))
        for _ in range(6)
    ]
    assert grants[0].recipe.delta == 0.0495
    assert sum(Fraction(grant.recipe.delta) for grant in grants) <= Fraction(0.05)
    certificate = certify(grants[0])
    assert verify_record(certificate).passed
    assert Certificate.from_json(certificate.to_json()) == certificate
    assert certificate.to_object()["recipe"]["first_share"] == FIRST_SHARE


@pytest.mark.parametrize(("bundle", "wanted"), [(BUNDLE, NEW), (OTHER_BUNDLE, RECIPES)])
def test_a_client_cannot_take_the_other_rule(
    both: SeedAuthority, device: DeviceState, bundle: str, wanted: RecipeTable
) -> None:
    made = commit(device, draw(30), bundle=bundle, recipe=wanted.recipe_for(30))
    with pytest.raises(ProtocolError, match="prescribes another recipe"):
        both.issue(made)


@pytest.mark.parametrize(("share", "delta"), [(FIRST_SHARE, 0.0495), (0.9, 0.0495)])
def test_a_certificate_cannot_take_the_other_rule(
    server: SeedAuthority, device: DeviceState, share: float, delta: float
) -> None:
    grant = server.issue(commit(device, draw(30)))
    forged = certify_anyway(grant, recipe=replace(grant.recipe, first_share=share, delta=delta))
    assert "witness" in [check.name for check in verify_record(forged).failures]


def test_an_attempt_under_the_old_rule_may_be_followed_by_one_under_the_new(
    both: SeedAuthority, device: DeviceState
) -> None:
    first = both.issue(commit(device, draw(30)))
    later = both.issue(
        commit(device, draw(30, 1), bundle=OTHER_BUNDLE, recipe=NEW.recipe_for(30))
    )
    assert first.recipe.delta + later.recipe.delta < 0.05


def test_a_first_attempt_under_the_new_rule_leaves_none_for_the_old(
    both: SeedAuthority, device: DeviceState, tmp_path: Path
) -> None:
    old = commit(device, draw(30, 1))
    both.issue(commit(device, draw(30), bundle=OTHER_BUNDLE, recipe=NEW.recipe_for(30)))
    with pytest.raises(
        ProtocolError, match=r"first attempt had 0\.99 of delta, .* leaves 0\.1"
    ):
        both.issue(old)
    assert both.history.next_attempt("alice") == 2


def test_a_log_in_which_the_old_rule_follows_the_new_is_refused(
    both: SeedAuthority,
    device: DeviceState,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both.issue(commit(device, draw(30), bundle=OTHER_BUNDLE, recipe=NEW.recipe_for(30)))
    with monkeypatch.context() as careless:
        careless.setattr(History, "_check_shares", lambda *_: None)
        both.issue(commit(device, draw(30, 1)))
    entries = read_log(tmp_path / "server" / "log.jsonl", both.public_key)
    with pytest.raises(ProtocolError, match="breaks the protocol: the client's first attempt"):
        History.of(entries)


def test_the_same_examples_get_no_attempt_of_each_rule(
    both: SeedAuthority, device: DeviceState
) -> None:
    commit(device, draw(30))
    with pytest.raises(RefusalError, match="already spent"):
        commit(device, draw(30), bundle=OTHER_BUNDLE, recipe=NEW.recipe_for(30))
