"""A client's own labels: committed to, certified with their texts, and verified from them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from tiny_models import make_family

from fedcert import load_classifier
from fedcert.certificates import Certificate, UnionRecipe, verify_record
from fedcert.certificates.recipes import SplitRecipe
from fedcert.data import Examples
from fedcert.errors import (
    BundleError,
    CertificateError,
    DataError,
    ProtocolError,
    RefusalError,
)
from fedcert.personalization import commit_to, personalize
from fedcert.protocol.commitment import Commitment
from fedcert.protocol.device import DeviceState
from fedcert.protocol.log import read_log
from fedcert.protocol.seeds import SeedGrant
from fedcert.verification import verify

from .named_client import NAMES, Client, signed

pytestmark = pytest.mark.filterwarnings("ignore:the labels")


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path)


@pytest.mark.parametrize("kind", [UnionRecipe, SplitRecipe])
def test_a_witnessed_certificate_is_verified_from_its_names(kind: Any, tmp_path: Path) -> None:
    client = Client(tmp_path, kind(candidates=8, delta=0.05))
    grant = client.server.issue(client.commit())
    done = client.personalize(SeedGrant.from_object(grant.to_object()))
    certificate = Certificate.read(tmp_path / "out" / "certificate.json")
    assert certificate == done.certificate
    assert certificate.labels == NAMES
    assert certificate.label_texts == tuple((f"about {name}",) for name in NAMES)
    assert certificate.chance == pytest.approx(2 / 3)
    assert any("without a look at the examples" in said for said in certificate.assumptions)
    assert client.failed(certificate) == []
    witness = client.server.countersign(certificate)
    log = read_log(tmp_path / "server" / "log.jsonl", client.server.public_key)
    [opening] = [client.options["state"].opening(grant.receipt.commitment)]
    report = verify(
        certificate,
        bundle=client.bundle,
        adapter=tmp_path / "out" / "adapter",
        data=client.examples,
        base=client.base,
        opening=opening,
        witness=witness,
        log=log,
    )
    assert report.passed, report.reasons
    predicted = load_classifier(tmp_path / "out" / "adapter", client.base).predict(
        list(client.examples.inputs)
    )
    wrong = np.array(predicted) != np.array(NAMES)[client.examples.labels]
    if kind is UnionRecipe:
        assert certificate.errors >= wrong.sum()


def test_an_unwitnessed_certificate_has_candidates_of_its_labels(client: Client) -> None:
    certificate = client.personalize(None).certificate
    assert client.failed(certificate) == []
    described = client.task(descriptions={"good3": "good3 good4"})
    with pytest.raises(RefusalError, match="spent"):
        client.personalize(None, described)
    client.options["state"] = DeviceState(client.folder / "forgetful")
    other = client.personalize(None, described).certificate
    assert other.candidate.seed != certificate.candidate.seed


def test_names_given_after_the_commitment_are_refused(client: Client) -> None:
    grant = client.server.issue(client.commit())
    for changed in (
        client.task(NAMES[::-1]),
        client.task(NAMES[:2]),
        client.task(descriptions={"good3": "good3 good4"}),
    ):
        with pytest.raises(ProtocolError, match="not the labels that were committed to"):
            client.personalize(grant, changed)
        # Nor can the same examples be committed to again, under other words.
        with pytest.raises(RefusalError, match="spent"):
            client.commit(changed)
    assert client.commit().root == grant.receipt.commitment
    assert client.failed(client.personalize(grant).certificate) == []


def test_a_certificate_cannot_say_other_words_than_the_server_saw(client: Client) -> None:
    certificate = client.personalize(client.server.issue(client.commit())).certificate
    texts = (("about something else",), *(certificate.label_texts or ())[1:])
    for changes in ({"label_texts": texts}, {"labels": NAMES[::-1]}):
        forged = signed(certificate, **changes)
        names = {check.name for check in verify_record(forged).failures}
        assert names == {"witness"}  # from the record alone
        with pytest.raises(ProtocolError, match="does not verify"):
            client.server.countersign(forged)
    silent = signed(certificate, label_texts=None)
    assert {"assumptions", "witness"} <= {c.name for c in verify_record(silent).failures}
    assert "labels" in client.failed(silent)


def test_unwitnessed_words_are_bound_to_the_seed(client: Client) -> None:
    certificate = client.personalize(None).certificate
    texts = (("about something else",), *(certificate.label_texts or ())[1:])
    forged = signed(certificate, label_texts=texts)
    assert verify_record(forged).passed
    assert "seed" in client.failed(forged)


def test_examples_of_one_label_say_something_where_names_define_the_task(
    client: Client,
) -> None:
    client.examples = client.examples.take(client.examples.labels == 1)
    assert client.failed(client.personalize(None).certificate) == []


def test_who_has_the_labels_is_never_a_guess(client: Client) -> None:
    with pytest.raises(DataError, match="leaves the labels to you"):
        commit_to(client.bundle, client.examples, **client.options)
    with pytest.raises(DataError, match="leaves the labels to you"):
        client.personalize(None, client.bundle.task(client.base))
    fixed = replace(client.bundle, labels=NAMES)
    with pytest.raises(BundleError, match="not for a client to bring"):
        fixed.task(client.base, labels=NAMES)
    with pytest.raises(DataError, match="the labels are the bundle's"):
        commit_to(fixed, client.examples, labels=client.task().label_set, **client.options)
    with pytest.raises(BundleError, match="publish it without labels"):
        personalize(
            fixed,
            client.task().model(),
            client.examples,
            folder=client.folder / "out",
            **client.options,
        )
    assert not (client.folder / "out").exists()
    with pytest.raises(DataError, match="at least two labels"):
        client.task(("good3",))


def test_a_trained_head_cannot_serve_a_bundle_without_labels(
    client: Client, tmp_path: Path
) -> None:
    vit = make_family("vit", tmp_path / "vit")
    bundle = replace(
        client.bundle, space=vit.space(), base_digest=vit.base.digest, inputs=vit.inputs
    )
    with pytest.raises(BundleError, match="its base model has its own"):
        bundle.task(vit.base)


def test_what_carries_labels_is_read_strictly(client: Client) -> None:
    commitment = client.commit()
    assert Commitment.from_object(json.loads(json.dumps(commitment.to_object()))) == commitment
    for damage in ({"names": ["a"]}, {"names": ["a", "a"], "texts": [["a"], ["a"]]}, 3):
        with pytest.raises(CertificateError, match="labels"):
            Commitment.from_object(commitment.to_object() | {"labels": damage})
    texts = {"names": list(NAMES), "texts": [["x"], ["y"], ["z"]]}
    with pytest.raises(ProtocolError, match="changed after signing"):
        Commitment.from_object(commitment.to_object() | {"labels": texts})
    grant = client.server.issue(commitment)
    with pytest.raises(ProtocolError, match="other labels"):
        replace(grant, labels="0" * 64).check(commitment)
    certificate = client.personalize(grant).certificate
    for wrong in (["a", "b", "c"], [["a"], ["b"]], [["a"], ["b"], []], [[1], ["b"], ["c"]]):
        with pytest.raises(CertificateError, match="label_texts"):
            Certificate.from_object(certificate.to_object() | {"label_texts": wrong})


def test_examples_of_an_unnamed_label_count_as_errors(client: Client) -> None:
    labels = client.examples.labels.copy()
    labels[0] = -1
    client.examples = Examples(client.examples.inputs, labels)
    certificate = client.personalize(None).certificate
    assert certificate.errors >= 1
    assert client.failed(certificate) == []


def test_a_folder_whose_labels_lost_their_texts_is_caught(client: Client) -> None:
    """Without them bare names would be embedded, which is another predictor."""
    descriptions = {NAMES[0]: "bad0 bad1 bad2 bad3", NAMES[2]: "good5"}
    made = client.personalize(None, client.task(descriptions=descriptions))
    honest = client.verify(made.certificate, data=False)
    assert honest.passed
    [left] = [item for item in honest.unchecked if item.name == "head"]
    assert "the label embeddings in head.safetensors" in left.detail
    about = made.adapter / "classifier.json"
    stripped = json.loads(about.read_text())
    stripped["labels"] = stripped["labels"]["names"]
    about.write_text(json.dumps(stripped))
    head = made.adapter / "head.safetensors"
    with safe_open(head, "np") as file:
        metadata = file.metadata()
    tensors = load_file(head)
    del tensors["label_embeddings"]
    save_file(tensors, head, metadata=metadata)
    assert client.failed(made.certificate) == ["adapter labels"]
    report = client.verify(made.certificate, data=False)
    assert "describes the labels otherwise" in report.failures[0].detail
