"""A tiny federation: a base model, a prior over its adapters, and a client's examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from tiny_models import Family

from fedcert.adapters import AdaptedModel
from fedcert.adapters.peft_format import write_peft_adapter
from fedcert.bundles import Bundle
from fedcert.certificates import (
    Certificate,
    RecipeTable,
    SplitRecipe,
    UnionRecipe,
    issue,
)
from fedcert.data import Examples
from fedcert.data.orders import in_drawn_order
from fedcert.personalization import Personalization, candidate_seed, personalize
from fedcert.priors import GaussianPrior
from fedcert.randomness import keyed_generator
from fedcert.records.signing import key_from_seed
from fedcert.search import BatchedScorer, exported_wrong

KEY = key_from_seed(bytes(range(32)))
CANDIDATES, UNION, SPLIT = 64, 24, 40
MISTAKES = 13
"""Every so many examples one has a wrong label."""


@dataclass(frozen=True)
class Served:
    """A client that was served, with all that a verifier may have."""

    bundle: Bundle
    model: AdaptedModel
    examples: Examples
    result: Personalization

    @property
    def certificate(self) -> Certificate:
        return self.result.certificate


def make_bundle(family: Family, *, seed: int = 0, **changes: object) -> Bundle:
    space = family.space(rank=2, last_layers=1)
    generator = keyed_generator("tiny federation", seed)
    mixing = generator.standard_normal((5, space.dimension))
    pool = generator.standard_normal((40, 5)) @ mixing
    recipes = RecipeTable(
        (
            (1, UnionRecipe(candidates=CANDIDATES, delta=0.05)),
            (SPLIT, SplitRecipe(candidates=CANDIDATES, delta=0.05)),
        )
    )
    parts = {
        "base_name": "vit",
        "base_revision": "local",
        "base_digest": family.base.digest,
        "space": space,
        "prior": GaussianPrior.fit(pool, seed=0),
        "inputs": family.inputs,
        "labels": ("other", "mine"),
        "recipes": recipes,
        "notes": {"prior": "the Gaussian, for want of time"},
    }
    return Bundle(**(parts | changes))


@pytest.fixture(scope="session")
def bundle(vit: Family) -> Bundle:
    return make_bundle(vit)


@pytest.fixture(scope="session")
def model(vit: Family, bundle: Bundle) -> AdaptedModel:
    return bundle.task(vit.base).model()


def solvable_examples(
    family: Family, bundle: Bundle, model: AdaptedModel, count: int, *, client: str = "c-1"
) -> Examples:
    """Draw images, labeled by one of the client's own candidates, which does well then.

    Whatever the candidates are: the last bits of prior and base model, and with them the
    bundle's digest and all seeds, are others on other machines.
    """
    inputs = family.examples(count, seed=7).inputs
    teachers = bundle.prior.sample(candidate_seed(bundle.digest, client, count), count=50)
    scorer = BatchedScorer(model, margin_tolerance=0.0)
    predicted = scorer.predict(teachers, inputs)
    # The adapter whose two classes are the most balanced.
    teacher = int(np.argmin(np.abs(predicted.mean(axis=1) - 0.5)))
    examples = Examples(inputs, predicted[teacher])
    for row in range(0, count, MISTAKES):
        examples = with_label(examples, row)
    return examples


Serve = Callable[[int], Served]


@pytest.fixture(scope="session")
def serve(
    vit: Family, bundle: Bundle, model: AdaptedModel, tmp_path_factory: pytest.TempPathFactory
) -> Serve:
    """Serve a client with n examples, once per n."""
    known: dict[int, Served] = {}

    def serve(count: int) -> Served:
        if count not in known:
            examples = solvable_examples(vit, bundle, model, count)
            folder: Path = tmp_path_factory.mktemp("client")
            result = personalize(bundle, model, examples, client="c-1", key=KEY, folder=folder)
            known[count] = Served(bundle, model, examples, result)
        return known[count]

    return serve


@pytest.fixture(params=[UNION, SPLIT], ids=["union", "split"])
def served(request: pytest.FixtureRequest, serve: Serve) -> Served:
    """A client of each kind of recipe in turn."""
    return serve(request.param)


def shuffled(examples: Examples, seed: int) -> Examples:
    return examples.take(keyed_generator("shuffle", seed).permutation(len(examples)))


def with_input(examples: Examples, row: int, value: float) -> Examples:
    inputs = np.array(examples.inputs)
    inputs[row, 0, 0, 0] = value
    return Examples(inputs, examples.labels)


def with_label(examples: Examples, row: int) -> Examples:
    labels = np.array(examples.labels)
    labels[row] = 1 - labels[row]
    return Examples(examples.inputs, labels)


def issued(
    bundle: Bundle,
    model: AdaptedModel,
    examples: Examples,
    honest: Certificate,
    vector: np.ndarray,
    folder: Path,
    **changes: object,
) -> Certificate:
    """Sign what a cheating client would, with the right errors of its adapter."""
    adapter = folder / "forged"
    adapter.mkdir(exist_ok=True)
    digest = write_peft_adapter(
        bundle.space,
        vector,
        adapter,
        base_name=model.base.name,
        base=model.base,
        labels=bundle.labels or model.task.labels,
        inputs=bundle.inputs.to_config(),
    )
    ordered = in_drawn_order(examples, honest.candidate.seed)
    span = honest.recipe.certifying(len(examples)).as_slice()
    wrong = exported_wrong(
        model.task,
        adapter,
        ordered.take(span),
        margin_tolerance=honest.recipe.margin_tolerance,
    )
    words = {
        "client": honest.client,
        "recipe": honest.recipe,
        "errors": int(wrong.sum()),
        "certified_on": len(wrong),
        "support_size": len(examples),
        "labels": bundle.labels,
        "index": honest.candidate.index,
        "seed": honest.candidate.seed,
        "vector": vector,
        "digests": replace(honest.digests, adapter=digest),
        "first_stage": honest.first_stage,
        "key": KEY,
    }
    return issue(**(words | changes))
