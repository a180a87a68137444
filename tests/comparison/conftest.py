from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from tiny_models import Family

from fedcert.adapters import AdaptedModel, FinetuneSettings, finetune
from fedcert.data import Examples
from fedcert.priors import GaussianPrior
from fedcert.randomness import keyed_generator
from fedcert.simulations.benchmarks.comparison import Upstream

CLIENTS = 12


@pytest.fixture(scope="session")
def own_model(vit: Family) -> AdaptedModel:
    return vit.adapted(rank=2, last_layers=1)


@pytest.fixture(scope="session")
def client_of(vit: Family) -> Callable[..., Examples]:
    """Odd clients call bright what even ones call dark; 1 label in 12 is at random."""

    def draw(index: int, count: int) -> Examples:
        examples = vit.examples(count, seed=1000 + index)
        generator = keyed_generator("tests/flips", index)
        flips = (index % 2) ^ (generator.random(count) < 1 / 12)
        return Examples(examples.inputs, np.where(flips, 1 - examples.labels, examples.labels))

    return draw


@pytest.fixture(scope="session")
def upstream(
    vit: Family, own_model: AdaptedModel, client_of: Callable[..., Examples]
) -> Upstream:
    training = FinetuneSettings(steps=30, batch_size=32)
    clients = {f"client-{index:02d}": client_of(index, 48) for index in range(CLIENTS)}
    pool = np.stack(
        [
            finetune(own_model, each, seed=0, settings=training).vector
            for each in clients.values()
        ]
    ).astype(np.float64)
    return Upstream(
        model=own_model,
        clients=clients,
        pool=pool,
        prior=GaussianPrior.fit(pool, seed=0),
        training=training,
        delta=0.05,
        candidates=60,
        steel_candidates=120,
        seed=0,
    )
