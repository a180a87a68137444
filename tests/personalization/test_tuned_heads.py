"""A head that a client trained from its labels' names: certified, handed out, and attacked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from fedcert import load_classifier
from fedcert.adapters import exported_digest
from fedcert.certificates import PosteriorSplitRecipe, Recipe, verify_record
from fedcert.certificates.record import encode_vector
from fedcert.data import Examples
from fedcert.data.orders import in_drawn_order
from fedcert.errors import AdapterError, ProtocolError
from fedcert.planning import ClientReplay
from fedcert.search import BatchedScorer, SupportSession

from .named_client import NAMES, Client, signed

pytestmark = pytest.mark.filterwarnings("ignore:the labels")

RECIPE = PosteriorSplitRecipe(candidates=1, delta=0.05, refinement="tuned_head")
BOTH = replace(RECIPE, candidates=2, finalists=2, refinement="finetune+tuned_head")


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path, RECIPE)


def _session(client: Client, recipe: Recipe, ordered: Examples, seed: str) -> SupportSession:
    scorer = BatchedScorer(client.task().model(), margin_tolerance=recipe.margin_tolerance)
    return SupportSession(recipe, client.bundle.prior, scorer, ordered, seed=seed)


@pytest.mark.parametrize("recipe", [RECIPE, BOTH], ids=lambda r: r.refinement)
def test_it_is_certified_and_verified_with_the_data_and_without(
    recipe: PosteriorSplitRecipe, tmp_path: Path
) -> None:
    client = Client(tmp_path, recipe)
    certificate = client.personalize(client.server.issue(client.commit())).certificate
    d, width = client.bundle.space.dimension, 16
    assert len(certificate.adapter_vector) == d + len(NAMES) * width
    assert client.failed(certificate) == []
    blind = client.verify(certificate, data=False)
    assert blind.passed
    assert "refinement" in {end.name for end in blind.unchecked}
    client.server.countersign(certificate)


def test_the_folder_alone_predicts_what_was_certified(client: Client) -> None:
    done = client.personalize(None)
    certificate = done.certificate
    classifier = load_classifier(done.adapter, client.base)
    assert classifier.labels == NAMES
    ordered = in_drawn_order(client.examples, certificate.candidate.seed)
    part = ordered.take(RECIPE.certifying(len(ordered)).as_slice())
    wrong = np.array(classifier.predict(list(part.inputs))) != np.array(NAMES)[part.labels]
    assert wrong.sum() <= certificate.errors
    stored = load_file(done.adapter / "head.safetensors")
    assert stored["label_moves"].shape == stored["label_embeddings"].shape
    assert stored["label_moves"].any()
    assert exported_digest(done.adapter) == certificate.digests.adapter


def test_no_certifying_example_has_a_say_in_it(client: Client) -> None:
    certificate = client.personalize(None).certificate
    seed = certificate.candidate.seed
    ordered = in_drawn_order(client.examples, seed)
    certifying = RECIPE.certifying(len(ordered)).as_slice()
    labels, inputs = ordered.labels.copy(), ordered.inputs.copy()
    labels[certifying] = (labels[certifying] + 1) % len(NAMES)
    inputs[certifying] = inputs[certifying][::-1]
    for other in (Examples(ordered.inputs, labels), Examples(inputs, ordered.labels)):
        chosen = RECIPE.choose(_session(client, RECIPE, other, seed))
        np.testing.assert_allclose(chosen.vector, certificate.adapter_vector, atol=1e-9)


def test_a_head_that_learned_from_all_examples_is_found_out(client: Client) -> None:
    certificate = client.personalize(None).certificate
    seed = certificate.candidate.seed
    ordered = in_drawn_order(client.examples, seed)
    [tuned] = RECIPE.refine(_session(client, RECIPE, ordered, seed))
    forged = client.forge(certificate, tuned)
    assert client.failed(forged, "forged") == ["choice"]
    d = client.bundle.space.dimension
    shorter = client.forge(certificate, tuned[:d])
    assert client.failed(shorter, "forged") == ["choice"]
    for more, check in ((1, "adapter"), (len(NAMES), "export")):
        vector = encode_vector(np.append(tuned, np.zeros(more)))
        longer = signed(certificate, candidate=replace(certificate.candidate, vector=vector))
        assert check in client.failed(longer)


def test_a_draw_of_the_prior_cannot_have_moved_labels(tmp_path: Path) -> None:
    client = Client(tmp_path)  # a union
    certificate = client.personalize(None).certificate
    moved = np.concatenate([certificate.adapter_vector, np.full(len(NAMES) * 16, 0.1)])
    assert client.failed(client.forge(certificate, moved), "forged") == ["candidate"]


def test_moves_that_are_no_part_of_the_certificate_are_found(client: Client) -> None:
    done = client.personalize(None)
    path = done.adapter / "head.safetensors"
    with safe_open(path, "np") as file:
        about = file.metadata()
    stored = load_file(path)
    stored["label_moves"] = stored["label_moves"] * 1.1
    save_file(stored, path, metadata=about)
    assert "adapter" in client.failed(done.certificate)
    stored["label_moves"] = stored["label_moves"][:2]
    save_file(stored, path, metadata=about)
    with pytest.raises(AdapterError, match="does not fit the names head"):
        load_classifier(done.adapter, client.base)


def test_other_names_after_the_commitment_are_refused(client: Client) -> None:
    grant = client.server.issue(client.commit())
    with pytest.raises(ProtocolError, match="not the labels that were committed to"):
        client.personalize(grant, client.task(NAMES[::-1]))
    certificate = client.personalize(grant).certificate
    # Names in another order would read the moves for other labels.
    texts = (certificate.label_texts or ())[::-1]
    swapped = signed(certificate, labels=NAMES[::-1], label_texts=texts)
    assert not verify_record(swapped).passed
    assert "error count" in client.failed(swapped)


def test_two_names_that_embed_alike_are_said_and_served(tmp_path: Path) -> None:
    client = Client(tmp_path, RECIPE)
    with pytest.warns(UserWarning, match="embed almost alike"):
        task = client.task(("good3", "bad0 bad1", "good3 good3"))
    certificate = client.personalize(None, task).certificate
    with pytest.warns(UserWarning, match="embed almost alike"):
        assert client.failed(certificate) == []


@pytest.mark.parametrize("recipe", [RECIPE, BOTH], ids=lambda r: r.refinement)
def test_a_planner_replays_what_a_client_is_served(
    recipe: PosteriorSplitRecipe, client: Client
) -> None:
    seed = "ab" * 32
    ordered = in_drawn_order(client.examples, seed)
    session = _session(client, recipe, ordered, seed)
    chosen = recipe.choose(session)
    span = recipe.certifies_on(chosen.choice, len(ordered))
    errors = int(session.score(chosen.vector[None], span)[0].sum())
    scorer = BatchedScorer(client.task().model(), margin_tolerance=recipe.margin_tolerance)
    replays = ClientReplay(
        client.bundle.prior, scorer, ordered, seed=seed, candidates=recipe.candidates
    )
    outcome = replays.outcome(recipe, len(ordered))
    assert (outcome.index, outcome.errors) == (chosen.index, errors)
    assert outcome.bound == recipe.bound(errors, span.size)
    assert 0 < replays.mean_bound(recipe, len(ordered) // 2) <= 1
