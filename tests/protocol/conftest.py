"""A server, a device, and examples, without any model: the protocol alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcert.certificates import (
    Certificate,
    Digests,
    Recipe,
    RecipeTable,
    SplitRecipe,
    UnionRecipe,
    issue,
)
from fedcert.data import Examples
from fedcert.protocol.authority import SeedAuthority
from fedcert.protocol.commitment import Commitment
from fedcert.protocol.device import DeviceState
from fedcert.protocol.seeds import SeedGrant
from fedcert.randomness import keyed_generator
from fedcert.records.signing import key_from_seed

ALICE, MALLORY, SERVER = (key_from_seed(bytes([i]) * 32) for i in (1, 2, 3))
BUNDLE, OTHER_BUNDLE = "b0" * 32, "b1" * 32
RECIPES = RecipeTable(
    (
        (1, UnionRecipe(candidates=100, delta=0.05)),
        (40, SplitRecipe(candidates=100, delta=0.05)),
    )
)


def draw(count: int, seed: int = 0) -> Examples:
    """Draw images of two pixels."""
    generator = keyed_generator("protocol tests", seed)
    images = generator.uniform(size=(count, 1, 1, 2)).astype(np.float32)
    return Examples(images, generator.integers(0, 2, count))


def shuffled(examples: Examples, seed: int = 0) -> Examples:
    return examples.take(keyed_generator("shuffle", seed).permutation(len(examples)))


def recipe_of(examples: Examples) -> Recipe:
    return RECIPES.recipe_for(len(examples))


def commit(
    device: DeviceState, examples: Examples, *, retry: bool = False, **changes: Any
) -> Commitment:
    arguments: dict[str, Any] = {
        "client": "alice",
        "key": ALICE,
        "bundle": BUNDLE,
        "recipe": recipe_of(examples),
    }
    return device.commit(examples, retry=retry, **(arguments | changes))


def certify(grant: SeedGrant, *, errors: int = 1, **changes: Any) -> Certificate:
    """Issue the certificate that a grant is for."""
    arguments: dict[str, Any] = {
        "client": grant.client,
        "recipe": grant.recipe,
        "errors": errors,
        "certified_on": grant.recipe.certifying(grant.support_size).size,
        "support_size": grant.support_size,
        "labels": ["no", "yes"],
        "index": 7,
        "seed": grant.seed,
        "vector": np.array([0.5, -2.0]),
        "digests": Digests(
            bundle=grant.bundle,
            base_model="c1" * 32,
            space="c2" * 32,
            prior="c3" * 32,
            adapter="c4" * 32,
            support="c5" * 32,
        ),
        "key": ALICE,
        "protocol": grant.receipt,
    }
    return issue(**(arguments | changes))


@pytest.fixture
def server(tmp_path: Path) -> SeedAuthority:
    authority = SeedAuthority(tmp_path / "server", key=SERVER)
    authority.publish(BUNDLE, RECIPES)
    return authority


@pytest.fixture
def device(tmp_path: Path) -> DeviceState:
    return DeviceState(tmp_path / "alice")
