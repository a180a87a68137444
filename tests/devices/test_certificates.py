"""A certificate that was made on one device verifies on another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from personalization.conftest import KEY, make_bundle, solvable_examples
from tiny_models import Family

from fedcert.certificates import DefaultRecipe, Recipe, RecipeTable, SplitRecipe, UnionRecipe
from fedcert.certificates.recipes import PosteriorSplitRecipe
from fedcert.personalization import personalize
from fedcert.priors import DiffusionPrior
from fedcert.priors.diffusion import DiffusionTraining
from fedcert.randomness import keyed_generator
from fedcert.verification import verify

RECIPES: dict[str, Recipe] = {
    "union": UnionRecipe(candidates=48, delta=0.05),
    "split": SplitRecipe(candidates=48, delta=0.05),
    "posterior-split": PosteriorSplitRecipe(
        candidates=16, delta=0.05, chains=4, steps=6, finalists=2
    ),
    "default": DefaultRecipe(candidates=1, delta=0.05),
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("made_there", [True, False], ids=["made there", "verified there"])
def test_it_verifies_on_another(
    recipe: str, made_there: bool, vit: Family, device: torch.device, tmp_path: Path
) -> None:
    space = vit.space(rank=2, last_layers=1)
    pool = keyed_generator("devices").standard_normal((24, space.dimension))
    prior = DiffusionPrior.fit(pool, seed=0, training=DiffusionTraining(max_steps=100))
    recipes = RecipeTable(((1, RECIPES[recipe]),))
    bundle = make_bundle(vit, recipes=recipes, prior=prior)
    examples = solvable_examples(vit, bundle, bundle.task(vit.base).model(), 40)
    there = vit.fresh().to(device)
    maker, verifier = (there, vit.base) if made_there else (vit.base, there)
    made = personalize(
        bundle, bundle.task(maker).model(), examples, client="c-1", key=KEY, folder=tmp_path
    )
    report = verify(
        made.certificate, bundle=bundle, adapter=made.adapter, data=examples, base=verifier
    )
    assert report.failures == ()
    assert made.certificate.digests.base_model == vit.base.digest
