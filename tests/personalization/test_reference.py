"""Not forgetting: anybody recounts a public sample, without the client's examples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_models import Family

from fedcert.bundles import Bundle
from fedcert.certificates import (
    RecipeTable,
    ReferencePromise,
    SplitRecipe,
    UnionRecipe,
    binomial_upper_bound,
    verify_record,
)
from fedcert.certificates.wording import TEMPLATES
from fedcert.errors import BundleError
from fedcert.personalization import personalize
from fedcert.randomness import keyed_generator
from fedcert.verification import verify
from tests.personalization.conftest import KEY, Served, make_bundle, solvable_examples

TERMS = {"candidates": 64, "delta": 0.025, "promises": (ReferencePromise(share=1.0),)}


@pytest.fixture(scope="module")
def referring(vit: Family) -> Bundle:
    recipes = RecipeTable(((1, UnionRecipe(**TERMS)), (40, SplitRecipe(**TERMS))))
    bundle = make_bundle(vit, recipes=recipes)
    sample = solvable_examples(vit, bundle, bundle.task(vit.base).model(), 100)
    return replace(bundle, reference=sample)


@pytest.fixture(scope="module", params=[32, 64], ids=["union", "split"])
def client(
    request: pytest.FixtureRequest,
    vit: Family,
    referring: Bundle,
    tmp_path_factory: pytest.TempPathFactory,
) -> Served:
    model = referring.task(vit.base).model()
    examples = solvable_examples(vit, referring, model, request.param)
    folder = tmp_path_factory.mktemp("referring")
    result = personalize(referring, model, examples, client="c-1", key=KEY, folder=folder)
    return Served(referring, model, examples, result)


def test_the_sample_is_counted_again_without_the_clients_data(
    vit: Family, client: Served
) -> None:
    certificate, adapter = client.certificate, client.result.adapter
    report = verify(certificate, bundle=client.bundle, adapter=adapter, base=vit.base)
    assert report.passed, report.reasons
    assert "reference sample" in {check.name for check in report.checks}
    assert "reference" in {item.name for item in verify(certificate).unchecked}
    [outcome] = certificate.promises
    # All 64 draws are paid for, also where the recipe does not pay for its choice.
    paid = binomial_upper_bound(outcome.errors, 100, 0.025 / 64)
    assert outcome.at_most == paid
    fewer = replace(outcome, errors=outcome.errors - 1)
    fewer = replace(fewer, at_most=binomial_upper_bound(fewer.errors, 100, 0.025 / 64))
    forged = replace(certificate, promises=(fewer,))
    forged = replace(forged, statement=TEMPLATES[0].statement(forged)).signed(KEY)
    assert verify_record(forged).passed
    found = verify(forged, bundle=client.bundle, adapter=adapter, base=vit.base)
    assert [check.name for check in found.failures] == ["reference sample"]


def test_a_bundle_keeps_its_sample_and_its_digest_covers_it(
    referring: Bundle, tmp_path: Path
) -> None:
    referring.save(tmp_path / "bundle")
    again = Bundle.load(tmp_path / "bundle")
    assert again.digest == referring.digest != replace(referring, reference=None).digest
    assert again.reference is not None
    assert np.array_equal(again.reference.inputs, referring.reference.inputs)
    labels = referring.reference.labels.copy()
    labels[0] = 1 - labels[0]
    changed = replace(referring, reference=replace(referring.reference, labels=labels))
    with pytest.raises(BundleError, match="arrays do not match its manifest"):
        Bundle.from_parts(referring.manifest_bytes(), changed.tensors())
    alien = replace(referring, reference=replace(referring.reference, labels=labels + 99))
    with pytest.raises(BundleError, match="reference sample has other labels"):
        Bundle.from_parts(alien.manifest_bytes(), alien.tensors())


def test_texts_come_back_as_they_were() -> None:
    from fedcert.bundles.reference import arrays_of, examples_from
    from fedcert.data import Examples

    texts = np.array(["", "née", "two\nlines", "日本"], dtype=object)
    sample = Examples(texts, np.array([0, 1, -1, 1]))
    again = examples_from(arrays_of(sample))
    assert again is not None
    assert again.inputs.tolist() == texts.tolist()
    assert again.labels.tolist() == sample.labels.tolist()


@pytest.mark.parametrize(("paid", "allowed"), [(100, True), (1, False)])
def test_a_client_that_chooses_by_the_public_sample_has_paid(
    paid: int, *, allowed: bool
) -> None:
    """The best of 100 draws of risk .2 on the sample itself, 10,000 times."""
    risk, size, delta, episodes = 0.2, 50, 0.05, 10_000
    errors = keyed_generator("peeking").binomial(size, risk, size=(episodes, 100)).min(axis=1)
    bounds = {k: binomial_upper_bound(int(k), size, delta / paid) for k in set(errors.tolist())}
    false = sum(bounds[k] < risk for k in errors.tolist())
    assert (false <= 1.2 * delta * episodes) is allowed
