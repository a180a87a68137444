"""From a bundle and examples to an adapter and a certificate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import Family

from fedcert.adapters import AdaptedModel, exported_digest, write_peft_adapter
from fedcert.bundles import Bundle
from fedcert.certificates import (
    Certificate,
    Choice,
    Chosen,
    RecipeTable,
    SplitRecipe,
    verify_record,
)
from fedcert.certificates.by_label import count_by_label
from fedcert.data import Examples
from fedcert.data.orders import in_drawn_order
from fedcert.errors import BundleError, CertificateError, DataError, RefusalError
from fedcert.personalization import candidate_seed, commit_to, personalize
from fedcert.protocol.authority import SeedAuthority
from fedcert.protocol.device import DeviceState
from fedcert.search import BatchedScorer

from .conftest import (
    CANDIDATES,
    KEY,
    MISTAKES,
    SPLIT,
    UNION,
    Serve,
    Served,
    shuffled,
    with_label,
)


def test_the_record_holds(served: Served) -> None:
    assert verify_record(served.certificate).failures == ()
    assert Certificate.read(served.result.adapter.parent / "certificate.json") == (
        served.certificate
    )


def test_the_certificate_says_what_was_done(served: Served) -> None:
    certificate, bundle, size = served.certificate, served.bundle, len(served.examples)
    assert certificate.client == "c-1"
    assert certificate.labels == ("other", "mine")
    assert certificate.recipe == bundle.recipes.recipe_for(size)
    assert certificate.support_size == size
    assert certificate.certified_on == (UNION if size == UNION else SPLIT // 2)
    assert certificate.witness is None
    assert certificate.candidate.seed == candidate_seed(bundle.digest, "c-1", size)
    assert certificate.candidate.index < CANDIDATES
    assert certificate.digests.adapter == exported_digest(served.result.adapter)
    assert certificate.digests.bundle == bundle.digest
    assert certificate.bound == certificate.recipe.bound(
        certificate.errors, certificate.certified_on
    )
    assert served.result.seconds > 0


def test_the_winner_is_the_best_on_the_choosing_examples(served: Served) -> None:
    certificate, recipe = served.certificate, served.certificate.recipe
    seed, size = certificate.candidate.seed, len(served.examples)
    ordered = in_drawn_order(served.examples, seed)
    vectors = served.bundle.prior.sample(seed, count=CANDIDATES)
    scorer = BatchedScorer(served.model, margin_tolerance=recipe.margin_tolerance)
    scores = scorer.score(vectors, ordered)
    assert scores.best(recipe.choosing(size).as_slice())[0] == certificate.candidate.index
    wrong = scores.wrong[certificate.candidate.index, recipe.certifying(size).as_slice()]
    assert wrong.sum() == certificate.errors
    certified = ordered.labels[recipe.certifying(size).as_slice()]
    names = certificate.labels
    by_label = count_by_label(certified, wrong, names)
    assert dict(served.result.errors_by_label or {}) == dict(by_label)
    np.testing.assert_allclose(
        certificate.adapter_vector, vectors[certificate.candidate.index], rtol=0, atol=1e-12
    )


def test_a_solvable_task_gets_a_useful_certificate(served: Served) -> None:
    certificate, recipe = served.certificate, served.certificate.recipe
    if not isinstance(recipe, SplitRecipe):
        # The candidate that labeled the examples is wrong on the mistakes alone.
        assert certificate.errors <= len(range(0, len(served.examples), MISTAKES))
        assert certificate.nonvacuous
        return
    ordered = in_drawn_order(served.examples, certificate.candidate.seed)
    vectors = served.bundle.prior.sample(certificate.candidate.seed, count=CANDIDATES)
    scorer = BatchedScorer(served.model, margin_tolerance=0.0)
    certifying = recipe.certifying(len(ordered)).as_slice()
    errors = scorer.score(vectors, ordered.take(certifying)).wrong.sum(axis=1)
    assert certificate.errors < errors.mean()


@pytest.mark.parametrize("seed", [1, 2])
def test_the_listing_order_of_examples_does_not_matter(
    served: Served, seed: int, tmp_path: Path
) -> None:
    examples = shuffled(served.examples, seed)
    assert not np.array_equal(examples.inputs, served.examples.inputs)
    again = personalize(
        served.bundle, served.model, examples, client="c-1", key=KEY, folder=tmp_path
    )
    assert again.certificate == served.certificate


def test_nor_do_examples_that_occur_twice(
    serve: Serve, bundle: Bundle, model: AdaptedModel, tmp_path: Path
) -> None:
    """Even with both labels: the order follows from input and label."""
    examples = serve(SPLIT).examples
    rows = [*range(SPLIT - 4), 0, 0, 1, 1]
    twice = with_label(examples.take(rows), SPLIT - 1)
    certificates = [
        personalize(
            bundle,
            model,
            shuffled(twice, seed),
            client="c-1",
            key=KEY,
            folder=tmp_path / str(seed),
            duplicates_are_real=True,
        ).certificate
        for seed in range(3)
    ]
    assert certificates[0] == certificates[1] == certificates[2]


def test_other_names_and_sizes_draw_other_candidates(bundle: Bundle) -> None:
    seeds = {
        candidate_seed(bundle.digest, "c-1", 40),
        candidate_seed(bundle.digest, "c-2", 40),
        candidate_seed(bundle.digest, "c-1", 41),
        candidate_seed("0" * 64, "c-1", 40),
    }
    assert len(seeds) == 4


def test_the_drawn_order_follows_from_seed_and_content(served: Served) -> None:
    ordered = in_drawn_order(served.examples, "a" * 64)
    other = in_drawn_order(served.examples, "b" * 64)
    again = in_drawn_order(shuffled(served.examples, 3), "a" * 64)
    np.testing.assert_array_equal(again.inputs, ordered.inputs)
    np.testing.assert_array_equal(again.labels, ordered.labels)
    assert not np.array_equal(other.inputs, ordered.inputs)
    sums = (np.sort(e.inputs.sum(axis=(1, 2, 3))) for e in (ordered, served.examples))
    np.testing.assert_allclose(*sums)


@pytest.mark.parametrize("count", [UNION, SPLIT])
def test_one_seed_gives_one_certificate_on_the_device_as_well(
    serve: Serve,
    bundle: Bundle,
    model: AdaptedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
) -> None:
    """A search with other settings, after a crash say, may rank candidates otherwise."""
    examples, state = serve(count).examples, DeviceState(tmp_path / "state")
    authority = SeedAuthority(tmp_path / "server")
    authority.publish(bundle.digest, bundle.recipes)
    common = {"client": "c-1", "key": KEY, "state": state}
    grant = authority.issue(commit_to(bundle, examples, **common))

    def certificate(to: str = "client") -> Certificate:
        folder = tmp_path / to
        result = personalize(bundle, model, examples, folder=folder, grant=grant, **common)
        assert result.certificate == Certificate.read(folder / "certificate.json")
        assert exported_digest(result.adapter) == result.certificate.digests.adapter
        return result.certificate

    first = certificate()

    def another(*_args: object, **_options: object) -> Chosen:
        index = (first.candidate.index + 1) % CANDIDATES
        vector = bundle.prior.sample(grant.seed, start=index, count=1)[0]
        return Chosen(Choice(index=index), vector)

    monkeypatch.setattr("fedcert.personalization.personalizing.choose", another)
    assert certificate() == first
    assert authority.countersign(first).certificate == first.digest
    # Nor does it help to lose what the folder holds, or to name another one.
    (tmp_path / "client" / "certificate.json").write_text("{")
    assert certificate() == first
    assert certificate("elsewhere") == first
    # Without a server the seed follows from the examples' number: the same holds.
    folders = (tmp_path / "one", tmp_path / "two")
    alone = DeviceState(tmp_path / "another state")
    monkeypatch.undo()
    options = {"client": "c-1", "key": KEY, "state": alone}
    made = personalize(bundle, model, examples, folder=folders[0], **options).certificate
    monkeypatch.setattr("fedcert.personalization.personalizing.choose", another)
    again = personalize(bundle, model, examples, folder=folders[1], **options)
    assert again.certificate == made
    assert exported_digest(again.adapter) == made.digests.adapter


def test_a_machine_with_other_last_bits_leaves_a_whole_folder_as_it_is(
    serve: Serve,
    bundle: Bundle,
    model: AdaptedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {"client": "c-1", "key": KEY, "state": DeviceState(tmp_path / "state")}
    examples = serve(UNION).examples

    def made(folder: str) -> Certificate:
        to = tmp_path / folder
        done = personalize(bundle, model, examples, folder=to, **options)
        assert exported_digest(done.adapter) == done.certificate.digests.adapter
        return done.certificate

    first = made("one")
    whole = "fedcert.personalization.personalizing.write_peft_adapter"

    def other_bits(space: Any, vector: Any, *args: Any, **words: Any) -> str:
        return write_peft_adapter(space, vector * (1 + 1e-6), *args, **words)

    monkeypatch.setattr(whole, other_bits)
    assert made("one") == first
    with pytest.raises(CertificateError, match="its adapter is another one"):
        made("two")
    assert not (tmp_path / "two" / "adapter").exists()


def test_a_kept_certificate_that_was_changed_is_not_handed_out(
    serve: Serve, bundle: Bundle, model: AdaptedModel, tmp_path: Path
) -> None:
    state = DeviceState(tmp_path / "state")
    options = {"client": "c-1", "key": KEY, "state": state}
    examples = serve(UNION).examples
    personalize(bundle, model, examples, folder=tmp_path / "one", **options)
    [kept] = (tmp_path / "state" / "certificates").iterdir()
    kept.write_text(kept.read_text().replace('"errors": ', '"errors": 1'))
    with pytest.raises(CertificateError):
        personalize(bundle, model, examples, folder=tmp_path / "two", **options)
    assert not (tmp_path / "two" / "certificate.json").exists()


def _personalize(bundle: Bundle, model: AdaptedModel, examples: Examples, to: Path) -> None:
    personalize(bundle, model, examples, client="c-1", key=KEY, folder=to)


def test_no_examples_are_refused(
    bundle: Bundle, model: AdaptedModel, vit: Family, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="the support set is empty; a certificate needs"):
        _personalize(bundle, model, vit.examples(0), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_one_class_is_refused(
    bundle: Bundle, model: AdaptedModel, vit: Family, tmp_path: Path
) -> None:
    examples = vit.examples(30)
    alike = Examples(examples.inputs, np.ones(30, dtype=np.int64))
    with pytest.raises(DataError, match="all 30 support examples have the same") as caught:
        _personalize(bundle, model, alike, tmp_path)
    assert "mine" not in str(caught.value)  # a node tells its server why it failed
    assert list(tmp_path.iterdir()) == []


def test_too_few_examples_are_refused_with_the_number_needed(
    bundle: Bundle, model: AdaptedModel, vit: Family, tmp_path: Path
) -> None:
    """A union over 64 candidates says nothing before .05/64 is above 2^-n: n = 11."""
    text = "10 examples are too few: .* recipe 'union' .* guessing; label at least 11"
    with pytest.raises(RefusalError, match=text):
        _personalize(bundle, model, vit.examples(10), tmp_path)
    assert list(tmp_path.iterdir()) == []
    _personalize(bundle, model, vit.examples(11), tmp_path)


def test_a_size_without_a_recipe_is_refused(
    bundle: Bundle, model: AdaptedModel, vit: Family, tmp_path: Path
) -> None:
    later = RecipeTable(((50, SplitRecipe(candidates=8, delta=0.05)),))
    with pytest.raises(CertificateError, match=r"no recipe for 20 examples; .* has 50"):
        _personalize(replace(bundle, recipes=later), model, vit.examples(20), tmp_path)


def test_scored_candidates_are_reported(
    bundle: Bundle, model: AdaptedModel, vit: Family, tmp_path: Path
) -> None:
    counts: list[int] = []
    personalize(
        bundle,
        model,
        vit.examples(UNION),
        client="c-1",
        key=KEY,
        folder=tmp_path,
        on_scored=counts.append,
    )
    assert sum(counts) == CANDIDATES


def test_a_model_that_reads_inputs_otherwise_is_refused(
    bundle: Bundle, vit: Family, tmp_path: Path
) -> None:
    other = replace(bundle, inputs=replace(bundle.inputs, high=255.0))
    with pytest.raises(BundleError, match="other inputs than the bundle's"):
        _personalize(bundle, other.task(vit.base).model(), vit.examples(20), tmp_path)
