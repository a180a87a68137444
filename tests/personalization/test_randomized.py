"""A bundle whose bounds are randomized: only a server's seed gives a number."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tiny_models import Family

from fedcert.adapters import AdaptedModel
from fedcert.bundles import Bundle
from fedcert.certificates import RecipeTable, SplitRecipe, binomial_upper_bound, verify_record
from fedcert.certificates.randomized import number_of
from fedcert.personalization import commit_to, personalize
from fedcert.protocol.authority import SeedAuthority
from fedcert.protocol.device import DeviceState
from fedcert.verification import check_adapter, check_bundle, check_data

from .conftest import CANDIDATES, KEY, make_bundle, solvable_examples

RANDOMIZED = SplitRecipe(candidates=CANDIDATES, delta=0.05, first_share=0.99, randomized=True)


def _bundle(family: Family) -> Bundle:
    return make_bundle(family, recipes=RecipeTable(((1, RANDOMIZED),)))


def test_with_a_server_the_seed_draws_the_number(
    vit: Family, model: AdaptedModel, tmp_path: Path
) -> None:
    bundle = _bundle(vit)
    examples = solvable_examples(vit, bundle, model, 48)
    authority = SeedAuthority(tmp_path / "server")
    authority.publish(bundle.digest, bundle.recipes)
    common = {"client": "c", "key": KEY, "state": DeviceState(tmp_path / "state")}
    grant = authority.issue(commit_to(bundle, examples, **common))
    done = personalize(bundle, model, examples, folder=tmp_path / "c", grant=grant, **common)
    made = done.certificate
    assert made.recipe.randomized
    assert made.bound == binomial_upper_bound(
        made.errors, 24, made.recipe.budget(), number_of(grant.seed)
    )
    checks = [*verify_record(made).checks, *check_bundle(made, bundle)]
    checks += check_adapter(made, bundle, done.adapter)
    checks += check_data(made, bundle, model.base, done.adapter, examples).checks
    assert [check.detail for check in checks if not check.passed] == []
    assert authority.countersign(made).certificate == made.digest


def test_without_a_server_the_bound_is_the_plain_one(
    vit: Family, model: AdaptedModel, tmp_path: Path
) -> None:
    bundle = _bundle(vit)
    examples = solvable_examples(vit, bundle, model, 48)
    made = personalize(
        bundle, model, examples, client="c", key=KEY, folder=tmp_path
    ).certificate
    assert made.recipe == replace(RANDOMIZED, randomized=False)
    assert made.bound == binomial_upper_bound(made.errors, 24, made.recipe.budget())
    assert "random number" not in made.statement
    assert all(check.passed for check in check_bundle(made, bundle))


def test_a_bundle_that_is_not_randomized_gives_no_number(
    vit: Family, model: AdaptedModel, tmp_path: Path
) -> None:
    bundle = _bundle(vit)
    plain = replace(bundle, recipes=RecipeTable(((1, RANDOMIZED.unwitnessed()),)))
    assert plain.digest != bundle.digest
    examples = solvable_examples(vit, bundle, model, 48)
    made = personalize(plain, model, examples, client="c", key=KEY, folder=tmp_path).certificate
    greedy = replace(made, recipe=replace(made.recipe, randomized=True))
    assert "recipe table" in [c.name for c in check_bundle(greedy, plain) if not c.passed]
