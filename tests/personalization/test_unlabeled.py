"""Inputs without labels: committed to, read by the method's net, and verified again."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_models import Family

from fedcert.arrays import FloatArray
from fedcert.certificates import Certificate, Sample, Unlabeled, verify_record
from fedcert.certificates.wording import TEMPLATES
from fedcert.data import Examples
from fedcert.data.orders import in_drawn_order
from fedcert.errors import (
    BundleError,
    CertificateError,
    DataError,
    ProtocolError,
    RefusalError,
    SettingsError,
)
from fedcert.methods import FedP2EFT
from fedcert.personalization import candidate_seed, personalize
from fedcert.personalization.unlabeled import overlap
from fedcert.priors import PointPrior
from fedcert.protocol.commitment import Commitment, Opening
from fedcert.protocol.device import DeviceState
from fedcert.protocol.seeds import SeedGrant
from fedcert.protocol.witness import check_opening
from fedcert.verification import verify

from .conftest import KEY, issued, make_bundle, shuffled
from .gated_client import Client, N, inputs_of


@pytest.fixture
def client(vit: Family, tmp_path: Path) -> Client:
    return Client(vit, tmp_path)


def _failed(report: object) -> list[str]:
    return [check.name for check in report.failures]  # type: ignore[attr-defined]


def test_a_witnessed_certificate_is_verified_with_them(client: Client, vit: Family) -> None:
    commitment = client.commit(client.unlabeled)
    assert Commitment.from_object(json.loads(json.dumps(commitment.to_object()))) == commitment
    grant = SeedGrant.from_object(client.server.issue(commitment).to_object())
    done = client.personalize(grant, client.unlabeled)
    certificate = Certificate.read(client.folder / "out" / "certificate.json")
    assert certificate == done.certificate
    assert certificate.unlabeled is not None
    assert certificate.unlabeled.count == 25
    assert any("without labels, 25 of them" in said for said in certificate.assumptions)
    report = client.verify(
        certificate,
        # What they were labeled, and how they were listed, says nothing.
        unlabeled=shuffled(client.unlabeled, 1),
        data=shuffled(client.examples, 2),
        opening=client.options["state"].opening(commitment.root),
    )
    assert report.passed, report.reasons
    assert {"unlabeled inputs", "choice"} <= {check.name for check in report.checks}
    assert "unlabeled" not in {end.name for end in report.unchecked}
    opening = client.options["state"].opening(commitment.root)
    assert check_opening(certificate, opening, client.examples).passed
    other = replace(opening, unlabeled=replace(certificate.unlabeled, salt="0" * 64))
    assert not check_opening(certificate, other, client.examples).passed
    client.server.countersign(certificate)


def test_without_the_file_verification_says_what_is_open(client: Client) -> None:
    certificate = client.personalize(None, client.unlabeled).certificate
    blind = client.verify(certificate, unlabeled=None)
    assert blind.passed
    [end] = [end for end in blind.unchecked if end.name == "unlabeled"]
    assert "made from them and the choosing examples alone" in end.detail
    assert "choice" not in {check.name for check in blind.checks}
    assert "unlabeled" in {
        end.name for end in client.verify(certificate, data=None, unlabeled=None).unchecked
    }
    assert client.verify(certificate).passed


def test_the_adapter_depends_on_them(client: Client) -> None:
    certificate = client.personalize(None, client.unlabeled).certificate
    ordered = in_drawn_order(client.examples, certificate.candidate.seed)
    with_them, without = (
        client.finalist(certificate, ordered, given) for given in (client.unlabeled, None)
    )
    np.testing.assert_allclose(with_them, certificate.adapter_vector, atol=1e-9)
    assert np.abs(with_them - without).max() > 1e-2


def test_no_certifying_example_and_no_label_of_theirs_has_a_say(client: Client) -> None:
    certificate = client.personalize(None, client.unlabeled).certificate
    ordered = in_drawn_order(client.examples, certificate.candidate.seed)
    labels, inputs = ordered.labels.copy(), ordered.inputs.copy()
    span = certificate.recipe.certifying(N).as_slice()
    labels[span], inputs[span] = 1 - labels[span], inputs[span][::-1]
    relabeled = replace(client.unlabeled, labels=client.unlabeled.labels + 1)
    for other, given in (
        (Examples(ordered.inputs, labels), client.unlabeled),
        (Examples(inputs, ordered.labels), client.unlabeled),
        (ordered, relabeled),
    ):
        made = client.finalist(certificate, other, given)
        np.testing.assert_allclose(made, certificate.adapter_vector, atol=1e-9)


def test_others_after_the_commitment_are_refused(client: Client, vit: Family) -> None:
    commitment = client.commit(client.unlabeled)
    grant = client.server.issue(commitment)
    others = inputs_of(vit, 1.0)
    for changed in (others, client.unlabeled.take(slice(1, None)), None):
        with pytest.raises(ProtocolError, match="25 inputs without labels, and these are not"):
            client.personalize(grant, changed)
        # Nor can the same examples be committed to again, with other inputs beside them.
        with pytest.raises(RefusalError, match="already spent"):
            client.commit(changed)
        with pytest.raises(RefusalError, match="already spent"):
            client.personalize(None, changed)
    assert client.commit(shuffled(client.unlabeled, 1)) == commitment
    assert client.commit(client.unlabeled, retry=True).unlabeled != commitment.unlabeled
    assert client.verify(client.personalize(grant, client.unlabeled).certificate).passed


def test_a_commitment_to_none_takes_none(client: Client) -> None:
    grant = client.server.issue(client.commit(None))
    with pytest.raises(ProtocolError, match="the commitment is to no inputs without labels"):
        client.personalize(grant, client.unlabeled)
    certificate = client.personalize(grant, None).certificate
    assert certificate.unlabeled is None
    assert client.verify(certificate, unlabeled=None).passed
    with pytest.raises(SettingsError, match="names no inputs without labels"):
        client.verify(certificate)
    with pytest.raises(SettingsError, match="show nothing without the data"):
        client.verify(certificate, data=None)


def _signed(certificate: Certificate, unlabeled: Unlabeled | None) -> Certificate:
    """Sign a certificate that names other inputs without labels, in the words for them."""
    words = TEMPLATES[0]
    changed = replace(certificate, unlabeled=unlabeled)
    changed = replace(changed, assumptions=words.assumptions(changed))
    return changed.signed(KEY)


def _forged(client: Client, honest: Certificate, unlabeled: Examples) -> Certificate:
    """Sign the adapter that other inputs give, found when the seed was known."""
    ordered = in_drawn_order(client.examples, honest.candidate.seed)
    vector = client.finalist(honest, ordered, unlabeled)
    changes = {"protocol": honest.protocol, "unlabeled": honest.unlabeled}
    return issued(
        client.bundle, client.model, client.examples, honest, vector, client.folder, **changes
    )


def test_who_shops_among_inputs_when_the_seed_is_known_is_found(
    client: Client, vit: Family
) -> None:
    grant = client.server.issue(client.commit(client.unlabeled))
    honest = client.personalize(grant, client.unlabeled).certificate
    adapter = client.folder / "forged"
    other = inputs_of(vit, 1.0)
    forged = _forged(client, honest, other)
    # With the committed inputs another adapter comes out.
    assert _failed(client.verify(forged, adapter=adapter)) == ["choice"]
    # The other file is not the committed one.
    shown = client.verify(forged, adapter=adapter, unlabeled=other)
    assert _failed(shown) == ["unlabeled inputs"]
    # A certificate that names the other file is not what the server signed for.
    salt = "ab" * 32
    swapped = Unlabeled(count=25, salt=salt, digest=other.inputs_digest(salt))
    for stated in (swapped, None):
        assert _failed(verify_record(_signed(forged, stated))) == ["witness"]


def _beside(unlabeled: Examples, more: Examples) -> Examples:
    inputs = np.concatenate([unlabeled.inputs, more.inputs])
    return Examples(inputs, np.full(len(inputs), -1))


@pytest.mark.parametrize("keeps_state", [True, False])
def test_what_certifies_is_not_among_them(client: Client, keeps_state: bool) -> None:
    if not keeps_state:
        client.options["state"] = None
    both = _beside(client.unlabeled, client.examples.take([0, 7]))
    said = "2 of the 40 support examples have an input that is among the inputs without labels"
    with pytest.raises(RefusalError, match=said):
        client.personalize(None, both)
    # Nothing was spent by that: without them all is well, and what was drawn again is stated.
    certificate = client.personalize(None, both, repeats_are_new=True).certificate
    assert certificate.sample is not None
    assert certificate.sample.repeats == 2
    assert client.verify(certificate, unlabeled=both).passed
    most = _beside(client.unlabeled, client.examples.take(slice(0, 21)))
    with pytest.raises(
        RefusalError,
        match=r"21 of the 40 support examples .* rows, and none that only read alike",
    ):
        client.personalize(None, most, repeats_are_new=True)


def test_a_commitment_states_what_was_drawn_again(client: Client) -> None:
    both = _beside(client.unlabeled, client.examples.take([3]))
    with pytest.raises(RefusalError, match="1 of the 40 support examples"):
        client.commit(both)
    grant = client.server.issue(client.commit(both, repeats_are_new=True))
    assert client.commit(both, repeats_are_new=True).root == grant.receipt.commitment
    certificate = client.personalize(grant, both).certificate
    assert certificate.sample is not None
    assert certificate.sample.repeats == 1
    assert client.verify(certificate, unlabeled=both).passed


def test_an_adapter_that_read_its_certifying_inputs_is_found(client: Client) -> None:
    """The mutant that a gate could make: what certifies goes through the net as well."""
    bundle, seed = client.bundle.digest, "0" * 64
    everything = _beside(client.unlabeled, client.examples)
    read = Unlabeled(
        count=len(everything), salt=bundle, digest=everything.inputs_digest(bundle)
    )
    seed = candidate_seed(bundle, "c", N, unlabeled=read)
    honest = client.personalize(None, client.unlabeled).certificate
    start = replace(honest, candidate=replace(honest.candidate, seed=seed))
    ordered = in_drawn_order(client.examples, seed)
    digests = replace(honest.digests, support=client.examples.multiset_digest(seed))
    forged = issued(
        client.bundle,
        client.model,
        client.examples,
        replace(start, digests=digests),
        client.finalist(start, ordered, everything),
        client.folder,
        unlabeled=read,
    )
    report = client.verify(forged, adapter=client.folder / "forged", unlabeled=everything)
    assert _failed(report) == ["unlabeled inputs"]
    assert "40 of the 40 examples" in report.reasons
    # Nor does it help to state that all of them were drawn again.
    sample = replace(forged.sample or Sample(), repeats=N)
    stated = _signed(replace(forged, sample=sample), read)
    report = client.verify(stated, adapter=client.folder / "forged", unlabeled=everything)
    assert _failed(report) == ["unlabeled inputs"]
    assert "the same observations, whatever is stated" in report.reasons


def test_they_are_spent_and_do_not_certify_later(client: Client, vit: Family) -> None:
    client.personalize(None, client.unlabeled)
    later = Examples(client.unlabeled.inputs, vit.examples(25, seed=4).labels)
    client.examples = _labeled(vit.examples(N, seed=6), later.take(slice(0, 2)))
    with pytest.raises(RefusalError, match=r"2 of the 42 .*being read without labels"):
        client.commit(None)


def _labeled(examples: Examples, more: Examples) -> Examples:
    labels = np.concatenate([examples.labels, more.labels])
    return Examples(np.concatenate([examples.inputs, more.inputs]), labels)


def test_an_unwitnessed_certificate_has_no_choice_of_a_salt(client: Client) -> None:
    certificate = client.personalize(None, client.unlabeled).certificate
    assert certificate.unlabeled is not None
    assert certificate.unlabeled.salt == client.bundle.digest
    salt = "ab" * 32
    other = Unlabeled(count=25, salt=salt, digest=client.unlabeled.inputs_digest(salt))
    seed = candidate_seed(client.bundle.digest, "c", N, unlabeled=other)
    tried = replace(
        _signed(certificate, other), candidate=replace(certificate.candidate, seed=seed)
    ).signed(KEY)
    assert verify_record(tried).passed
    assert "seed" in _failed(client.verify(tried, data=None, unlabeled=None))
    bare = _signed(certificate, None)
    assert "seed" in _failed(client.verify(bare, data=None, unlabeled=None))


def test_a_bundle_that_reads_no_inputs_takes_none(
    client: Client, vit: Family, tmp_path: Path
) -> None:
    plain, coded = make_bundle(vit), Client(vit, tmp_path / "coded", codes=2)
    for bundle in (plain, coded.bundle):
        with pytest.raises(BundleError, match="no use for inputs without labels"):
            personalize(
                bundle,
                bundle.task(vit.base).model(),
                client.examples,
                client="c",
                key=KEY,
                folder=tmp_path / "out",
                unlabeled=client.unlabeled,
            )
    # Nor may a certificate name some that had no part: they would only give other seeds.
    certificate = client.personalize(None, client.unlabeled).certificate
    report = verify(certificate, bundle=coded.bundle)
    [check] = [check for check in report.checks if check.name == "unlabeled"]
    assert not check.passed


def test_inputs_that_cannot_be_read_say_nothing(client: Client) -> None:
    raw = np.array([b"x", *[None] * 25], dtype=object)
    inputs = np.concatenate([client.unlabeled.inputs[:1], client.unlabeled.inputs])
    some = Examples(inputs, np.full(26, -1), raw)
    certificate = client.personalize(None, some).certificate
    ordered = in_drawn_order(client.examples, certificate.candidate.seed)
    made = client.finalist(certificate, ordered, client.unlabeled)
    np.testing.assert_allclose(made, certificate.adapter_vector, atol=1e-9)
    assert _failed(client.verify(certificate)) == ["unlabeled inputs"]  # one is missing
    none = Examples(inputs[:1], np.full(1, -1), raw[:1])
    with pytest.raises(DataError, match="none of the inputs without labels can be read"):
        client.commit(none)


def test_what_no_file_would_give_is_refused_before_anything_is_spent(client: Client) -> None:
    inputs = client.unlabeled.inputs
    broken = inputs.copy()
    broken[3, 0, 0, 0] = np.nan
    for wrong, said in (
        (inputs[:0], "or there is none"),
        (inputs[:, :, :4], r"the shape \(1, 4, 8\)"),
        (np.array(["a text"] * 3, dtype=object), "both are inputs of one task"),
        (broken, "holds NaN or an infinity"),
    ):
        given = Examples(wrong, np.full(len(wrong), -1))
        with pytest.raises(DataError, match=said):
            client.commit(given)
        with pytest.raises(DataError, match=said):
            client.personalize(None, given)
    client.personalize(None, None)  # nothing is spent


def test_what_names_them_is_read_strictly(client: Client) -> None:
    commitment = client.commit(client.unlabeled)
    opening = client.options["state"].opening(commitment.root)
    assert opening is not None
    assert Opening.from_object(json.loads(json.dumps(opening.to_object()))) == opening
    for damage in (3, "ab", {"count": 1}):
        with pytest.raises(CertificateError, match="unlabeled"):
            Opening.from_object(opening.to_object() | {"unlabeled": damage})
    with pytest.raises(ProtocolError, match="does not open the commitment's inputs"):
        replace(opening, unlabeled=None).validate("opening")
    with pytest.raises(ProtocolError, match="changed after signing"):
        Commitment.from_object(commitment.to_object() | {"unlabeled": "0" * 64})
    grant = client.server.issue(commitment)
    with pytest.raises(ProtocolError, match="other inputs without labels"):
        replace(grant, unlabeled="0" * 64).check(commitment)
    certificate = client.personalize(grant, client.unlabeled).certificate
    assert certificate.unlabeled is not None
    none = replace(certificate.unlabeled, count=0)
    with pytest.raises(CertificateError, match=r"unlabeled\.count must be at least 1"):
        replace(certificate, unlabeled=none).validate("certificate")
    wrong = replace(certificate.unlabeled, count=24)
    assert _failed(client.verify(_signed(certificate, wrong))) == ["unlabeled inputs"]


def test_the_commitment_hides_them_from_the_server(client: Client) -> None:
    """Who guesses them all finds their digest nowhere in what the server gets."""
    commitment = client.commit(client.unlabeled)
    for key in ("", client.bundle.digest, commitment.root, commitment.claim):
        assert client.unlabeled.inputs_digest(key) != commitment.unlabeled
    other = DeviceState(client.folder / "other state")
    client.options["state"] = other
    again = client.commit(client.unlabeled)
    assert again.unlabeled != commitment.unlabeled  # a salt of its own


def test_a_server_ties_a_root_to_one_set_and_counts_every_other(
    client: Client, vit: Family
) -> None:
    commitment = client.commit(client.unlabeled)
    first = client.server.issue(commitment)
    other = replace(commitment, unlabeled="0" * 64)
    opening = client.options["state"].opening(commitment.root)
    assert opening is not None
    for changed in (other, replace(commitment, unlabeled=None)):
        root = Opening.root(changed, client.examples, opening.salts)
        assert root != commitment.root
    # The root that has a seed, with other words; then the same examples, with the ledger lost.
    with pytest.raises(ProtocolError, match="was committed before, with other words"):
        client.server.issue(other.signed(KEY))
    client.options["state"] = DeviceState(client.folder / "forgetful")
    second = client.server.issue(client.commit(inputs_of(vit, 1.0)))
    assert second.seed != first.seed
    assert second.receipt.attempt == 2
    assert second.recipe.delta < 0.05 - first.recipe.delta


def test_an_example_is_recognized_however_it_is_written() -> None:
    texts = np.array(["Freeze  my card", "pay", "pay"], dtype=object)
    examples = Examples(texts, np.array([0, 1, 1]))
    same = Examples(np.array(["freeze my CARD", "other"], dtype=object), np.full(2, -1))
    assert overlap(examples, same)[0] == 1
    twice = Examples(np.array(["Pay"], dtype=object), np.full(1, -1))
    assert overlap(examples, twice)[0] == 2
    # Another system may write an accent as a letter of its own: that is the same text.
    one, two = (unicodedata.normalize(form, "un café") for form in ("NFC", "NFD"))
    assert one != two
    accents = Examples(np.array([one, "pay"], dtype=object), np.array([0, 1]))
    assert overlap(accents, Examples(np.array([two], dtype=object), np.full(1, -1)))[0] == 1
    # What cannot be read says nothing, and certifies nothing.
    raw = np.array([b"x", None, None], dtype=object)
    unread = Examples(texts, np.array([-1, 1, 1]), raw)
    assert overlap(unread, same)[0] == 0


def test_the_rule_gets_them_in_one_order(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However a verifier's file lists them: sums of floats depend on it in their last bits."""
    seen = []

    def learned(
        self: FedP2EFT, prior: PointPrior, model: object, examples: object, unlabeled: Examples
    ) -> FloatArray:
        seen.append(unlabeled.inputs)
        return prior.center()

    certificate = client.personalize(None, client.unlabeled).certificate
    monkeypatch.setattr(FedP2EFT, "learned_beside", learned)
    for listed in (client.unlabeled, shuffled(client.unlabeled, 1)):
        client.finalist(certificate, client.examples, listed)
    np.testing.assert_array_equal(*seen)
