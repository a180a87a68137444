"""A factory of small valid certificates."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pytest

from fedcert.certificates import Certificate, Digests, Recipe, UnionRecipe, issue
from fedcert.records.signing import key_from_seed

KEY = key_from_seed(bytes(range(32)))
ATTACKER = key_from_seed(bytes(32))


class Issuer(Protocol):
    def __call__(self, recipe: Recipe | None = None, **changes: Any) -> Certificate: ...


@pytest.fixture
def make() -> Issuer:
    """Issue a certificate for 80 examples, with arguments of `issue` changed at will."""

    def make(recipe: Recipe | None = None, **changes: Any) -> Certificate:
        recipe = recipe or UnionRecipe(candidates=20_000, delta=0.05)
        size = changes.get("support_size", 80)
        arguments: dict[str, Any] = {
            "client": "client-7",
            "recipe": recipe,
            "errors": 3,
            "certified_on": recipe.certifying(size).size,
            "support_size": size,
            "labels": ["alarm", "music", "travel", "weather"],
            "index": 1234,
            "seed": "0123456789abcdef" * 4,
            "vector": np.array([0.25, -1.5, 3.0e-7]),
            "digests": Digests(
                bundle="b0" * 32,
                base_model="b1" * 32,
                space="b2" * 32,
                prior="b3" * 32,
                adapter="b4" * 32,
                support="b5" * 32,
            ),
            "key": KEY,
        }
        return issue(**(arguments | changes))

    return make
