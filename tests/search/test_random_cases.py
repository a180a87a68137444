"""A hundred random cases per family: the batched scorer is the plain loop over PEFT."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_models import Family

from fedcert.adapters import AdapterSpace, Task
from fedcert.randomness import keyed_generator
from fedcert.search import BatchedScorer, ReferenceScorer, Scores

CASES, SETUPS, TOLERANCE = 100, 10, 1e-4
PROJECTIONS = (
    ("q_proj", "v_proj", "query", "value"),
    ("k_proj", "v_proj", "key", "value"),
    ("q_proj", "query", "fc1", "up_proj", "dense"),
)


@pytest.mark.parametrize("name", ["bert", "vit", "llama"])
def test_losses_and_winner_are_those_of_peft(name: str, request: pytest.FixtureRequest) -> None:
    family: Family = request.getfixturevalue(name)
    for setup in range(SETUPS):
        generator = keyed_generator("random setups", name, setup)
        space = AdapterSpace.of(
            family.base,
            rank=int(generator.integers(1, 9)),
            last_layers=int(generator.integers(1, 4)),
            projections=PROJECTIONS[generator.integers(len(PROJECTIONS))],
        )
        reduce_top = bool(generator.random() < 0.8)
        model = Task(family.base, space, family.inputs).model(reduce_top=reduce_top)
        memory = float(generator.choice([1e-6, 0.05, 64]))
        batched = BatchedScorer(model, margin_tolerance=TOLERANCE, memory_mib=memory)
        reference = ReferenceScorer(
            Task(family.base, space, family.inputs), margin_tolerance=TOLERANCE
        )
        for case in range(CASES // SETUPS):
            examples = family.examples(int(generator.integers(1, 17)), seed=1000 + case)
            if name != "vit" and generator.random() < 0.3:  # as long as one another
                full = (examples.inputs > 0).all(axis=1)
                examples = examples.take(full) if full.any() else examples
            scale = generator.choice([0.1, 0.5, 1.0])
            count = int(generator.integers(1, 6))
            vectors = scale * generator.standard_normal((count, space.dimension))
            ours, theirs = (s.score(vectors, examples) for s in (batched, reference))
            np.testing.assert_allclose(ours.losses, theirs.losses, rtol=0, atol=1e-4)
            _check_winner(ours, theirs)


def _check_winner(ours: Scores, theirs: Scores) -> None:
    """The same winner, or one that ties with it up to rounding."""
    mine, wanted = ours.best(), theirs.best()
    if mine[0] != wanted[0]:
        errors, losses = theirs.wrong.sum(axis=1), theirs.losses.mean(axis=1)
        assert abs(int(errors[mine[0]]) - wanted[1]) <= (ours.wrong != theirs.wrong).sum()
        assert abs(float(losses[mine[0]]) - wanted[2]) <= 2e-4 or (
            (ours.wrong != theirs.wrong).any()
        )
