"""Every recipe that can be issued, from examples to a verified certificate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_models import Family

from fedcert.adapters import AdaptedModel
from fedcert.bundles import Bundle
from fedcert.certificates import (
    Certificate,
    Recipe,
    RecipeTable,
    binomial_upper_bound,
    verify_record,
)
from fedcert.certificates.recipes import HybridRecipe, MixedUnionRecipe
from fedcert.data import Examples
from fedcert.data.orders import in_drawn_order
from fedcert.errors import CertificateError
from fedcert.personalization import personalize
from fedcert.search import BatchedScorer, choose
from fedcert.verification import check_adapter, check_bundle, check_data
from personalization.conftest import (
    CANDIDATES,
    KEY,
    issued,
    make_bundle,
    solvable_examples,
)

TERMS = {"candidates": CANDIDATES, "delta": 0.05}
RECIPES = {
    "union": {},
    "split": {},
    "weighted_union": {},
    "mixed_union": {"constants": 2},
    "hybrid": {},
    "default": {"candidates": 1},
    "posterior_split": {"chains": 8, "steps": 10},
    "tuned": {"kind": "posterior_split", "refinement": "finetune"},
    "mode": {"kind": "posterior_split", "refinement": "posterior_mode"},
    "local head": {"kind": "posterior_split", "refinement": "local_head"},
    "tuned head": {"kind": "posterior_split", "refinement": "tuned_head"},
    "all kinds": {
        "kind": "posterior_split",
        "chains": 8,
        "steps": 10,
        "finalists": 5,
        "refinement": "posterior_mean+posterior_mode+finetune+local_head+tuned_head",
    },
    "two finalists": {"kind": "posterior_split", "chains": 8, "steps": 10, "finalists": 2},
}


def _bundle(family: Family, name: str) -> Bundle:
    recipe = Recipe.from_config({"kind": name, **TERMS, **RECIPES[name]})
    return make_bundle(family, recipes=RecipeTable(((1, recipe),)))


@pytest.mark.parametrize("name", RECIPES)
def test_a_certificate_of_each_kind_verifies(
    vit: Family, model: AdaptedModel, name: str, tmp_path: Path
) -> None:
    bundle = _bundle(vit, name)
    examples = solvable_examples(vit, bundle, model, 48, client="c")
    result = personalize(bundle, model, examples, client="c", key=KEY, folder=tmp_path)
    certificate = Certificate.read(tmp_path / "certificate.json")
    assert certificate == result.certificate
    assert certificate.bound < 1
    assert verify_record(certificate).passed
    checks = check_bundle(certificate, bundle)
    checks += check_adapter(certificate, bundle, result.adapter)
    checks += check_data(certificate, bundle, model.base, result.adapter, examples).checks
    assert [check.detail for check in checks if not check.passed] == []
    made_again = {"default", "mixed_union", "weighted_union", "union"}.isdisjoint({name})
    assert any(check.name == "choice" for check in checks) == made_again


def test_a_default_adapter_is_the_prior_s_center_and_nothing_else(
    vit: Family, model: AdaptedModel, tmp_path: Path
) -> None:
    bundle = _bundle(vit, "default")
    examples = solvable_examples(vit, bundle, model, 48, client="c")
    scored: list[int] = []
    result = personalize(
        bundle, model, examples, client="c", key=KEY, folder=tmp_path, on_scored=scored.append
    )
    certificate = result.certificate
    assert scored == []
    assert certificate.certified_on == 48
    np.testing.assert_array_equal(certificate.adapter_vector, bundle.prior.center())
    [found] = [
        check for check in check_bundle(certificate, bundle) if check.name == "candidate"
    ]
    assert found.detail.startswith("the adapter is the center of the bundle's prior")
    # A draw that fits the examples better, handed out as if it were the center.
    draw = bundle.prior.sample(certificate.candidate.seed, start=0, count=1)[0]
    for other in (draw, bundle.prior.center() + 1e-5):
        forged = issued(bundle, model, examples, certificate, other, tmp_path)
        assert verify_record(forged).passed
        failed = [check for check in check_bundle(forged, bundle) if not check.passed]
        assert [check.name for check in failed] == ["candidate"]
        assert "is not the center of the bundle's prior" in failed[0].detail


def test_a_client_whose_labels_are_mostly_one_gets_a_constant(
    vit: Family, model: AdaptedModel, tmp_path: Path
) -> None:
    bundle = _bundle(vit, "mixed_union")
    inputs = vit.examples(48, seed=11).inputs
    examples = Examples(inputs, (np.arange(48) % 12 > 0).astype(np.int64))
    result = personalize(bundle, model, examples, client="c", key=KEY, folder=tmp_path)
    certificate = result.certificate
    assert (certificate.candidate.index, certificate.errors) == (1, 4)
    assert certificate.bound == binomial_upper_bound(4, 48, 0.05 / 4)
    checks = check_bundle(certificate, bundle)
    checks += check_adapter(certificate, bundle, result.adapter)
    checks += check_data(certificate, bundle, model.base, result.adapter, examples).checks
    assert all(check.passed for check in checks)
    # The draw of that number, handed out as if it were the constant.
    draw = bundle.prior.sample(certificate.candidate.seed, start=1, count=1)[0]
    forged = issued(bundle, model, examples, certificate, draw, tmp_path)
    checks = check_bundle(forged, bundle)
    assert [check.name for check in checks if not check.passed] == ["candidate"]


@pytest.mark.parametrize("constants", [3, 5])
def test_constants_that_the_model_does_not_have_are_refused(
    vit: Family, model: AdaptedModel, constants: int, tmp_path: Path
) -> None:
    recipe = MixedUnionRecipe(**TERMS, constants=constants)
    bundle = make_bundle(vit, recipes=RecipeTable(((1, recipe),)))
    examples = solvable_examples(vit, bundle, model, 48, client="c")
    with pytest.raises(CertificateError, match=rf"has {constants} constant.*this model 2"):
        personalize(bundle, model, examples, client="c", key=KEY, folder=tmp_path)


def test_a_posterior_that_peeked_is_caught_with_the_data(
    vit: Family, model: AdaptedModel, tmp_path: Path
) -> None:
    """Refined on all examples, the certifying ones included: the bound would not hold."""
    bundle = _bundle(vit, "posterior_split")
    examples = solvable_examples(vit, bundle, model, 48, client="c")
    honest = personalize(bundle, model, examples, client="c", key=KEY, folder=tmp_path)
    recipe, seed = honest.certificate.recipe, honest.certificate.candidate.seed
    ordered = in_drawn_order(examples, seed)
    scorer = BatchedScorer(model, margin_tolerance=recipe.margin_tolerance)
    # Reversed, the recipe's choosing examples are its certifying ones.
    order = np.arange(len(ordered))[::-1].copy()
    peeked = choose(recipe, bundle.prior, scorer, ordered.take(order), seed=seed)
    forged = issued(bundle, model, examples, honest.certificate, peeked.vector, tmp_path)
    assert verify_record(forged).passed  # the record alone cannot tell
    checks = check_data(forged, bundle, model.base, tmp_path / "forged", examples).checks
    assert [check.name for check in checks if not check.passed] == ["choice"]


def test_a_first_stage_that_was_made_up_is_caught_with_the_data(
    vit: Family, model: AdaptedModel, tmp_path: Path
) -> None:
    bundle = _bundle(vit, "hybrid")
    for name in "abcdefgh":  # one whose winner has nearly all weight as it is gains nothing
        folder = tmp_path / name
        examples = solvable_examples(vit, bundle, model, 48, client=name)
        honest = personalize(bundle, model, examples, client=name, key=KEY, folder=folder)
        stage = honest.certificate.first_stage
        assert stage is not None
        assert isinstance(honest.certificate.recipe, HybridRecipe)
        # The winner alone had few errors, and all others many: nearly all weight is its own.
        profile = [0] * len(stage.profile)
        profile[stage.errors], profile[-1] = 1, CANDIDATES - 1
        better = replace(stage, profile=tuple(profile))
        vector = honest.certificate.adapter_vector
        forged = issued(
            bundle, model, examples, honest.certificate, vector, folder, first_stage=better
        )
        if forged.bound < honest.certificate.bound:
            break
    assert forged.bound < honest.certificate.bound
    checks = check_data(forged, bundle, model.base, folder / "forged", examples).checks
    assert [check.name for check in checks if not check.passed] == ["choice"]
