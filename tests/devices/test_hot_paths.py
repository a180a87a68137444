"""Everything that computes runs on another device, and gives what the CPU gives.

Base models are made inside a test: moving one moves it for all who share it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from priors.prior_suite import gaussian_pool
from tiny_models import Family

from fedcert.adapters import (
    AdapterSpace,
    FinetuneSettings,
    PrefixCache,
    Task,
    finetune,
    write_peft_adapter,
)
from fedcert.adapters.plain_lora import finetune_lora
from fedcert.priors import DiffusionPrior
from fedcert.priors.diffusion import DiffusionTraining
from fedcert.randomness import derive_seed, keyed_generator
from fedcert.search import BatchedScorer, ReferenceScorer, exported_wrong
from fedcert.search.learning import finetuned, local_head
from fedcert.search.refinement import posterior_means

TOLERANCE = 1e-4


def _tasks(
    family: Family, device: torch.device, last_layers: int, *, tied: int = 0
) -> tuple[Task, Task]:
    """Return a family's task on the CPU, and the same on the device."""
    space = family.space(last_layers=last_layers, tied=tied)
    there = family.fresh().to(device)
    assert there.device == device
    assert there.digest == family.base.digest
    return Task(family.base, space, family.inputs), Task(there, space, family.inputs)


def _vectors(space: AdapterSpace, count: int) -> np.ndarray:
    return keyed_generator("candidates").standard_normal((count, space.dimension))


@pytest.mark.parametrize("last_layers", [1, 3])
def test_candidates_score_alike(
    any_family: Family, last_layers: int, device: torch.device
) -> None:
    examples, losses = any_family.examples(9), []
    for task in _tasks(any_family, device, last_layers):
        scorer = BatchedScorer(
            task.model(prefix_cache=PrefixCache()), margin_tolerance=TOLERANCE
        )
        assert scorer.model.note == any_family.adapted(last_layers=last_layers).note
        scores = scorer.score(_vectors(task.space, 5), examples)
        rows = [np.array([1, 4, 2]), np.array([0, 8])]
        parts = [
            scorer.score(_vectors(task.space, 5), part) for part in scorer.split(examples, rows)
        ]
        np.testing.assert_allclose(parts[0].losses, scores.losses[:, rows[0]], atol=1e-5)
        losses.append(scores.losses)
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-4)


def test_training_goes_alike(family: Family, device: torch.device) -> None:
    examples, settings = family.examples(20), FinetuneSettings(steps=6, batch_size=8)
    found = []
    for task in _tasks(family, device, 2):
        model = task.model()
        trained = finetune(model, examples, seed=1, settings=settings)
        lora = finetune_lora(model, examples, rank=2, seed=1, settings=settings)
        down, up, _ = next(iter(lora.update.factors.values()))
        found.append((trained.vector, down, up, [trained.loss, lora.loss]))
    for here, there in zip(*found, strict=True):
        np.testing.assert_allclose(here, there, atol=2e-3)


def test_what_tied_modules_share_goes_alike(vit: Family, device: torch.device) -> None:
    examples, found = vit.examples(20), []
    settings = FinetuneSettings(steps=6, batch_size=8)
    for task in _tasks(vit, device, 2, tied=6):
        model = task.model()
        scorer = BatchedScorer(model, margin_tolerance=TOLERANCE)
        losses = scorer.score(_vectors(task.space, 5), examples).losses
        found.append((losses, finetune(model, examples, seed=1, settings=settings).vector))
    for here, there in zip(*found, strict=True):
        np.testing.assert_allclose(here, there, atol=2e-3)


def test_finalists_are_trained_alike(bert: Family, device: torch.device) -> None:
    examples, found = bert.examples(16), []
    for task in _tasks(bert, device, 1):
        scorer = BatchedScorer(task.model(), margin_tolerance=TOLERANCE)
        start = 0.1 * _vectors(task.space, 1)[0]
        tuned = finetuned(scorer, examples, start, steps=5, learning_rate=0.01, pull=0.1)
        found.append((tuned, local_head(scorer, examples)))
    for here, there in zip(*found, strict=True):
        np.testing.assert_allclose(here, there, atol=2e-3)


def test_a_prior_is_fitted_and_sampled_alike(device: torch.device) -> None:
    pool = gaussian_pool(24)
    training = DiffusionTraining(max_steps=100, check_every=50)
    fitted = [
        DiffusionPrior.fit(pool, seed=1, training=training, device=place)
        for place in (torch.device("cpu"), device)
    ]
    seed = derive_seed("device")
    here, there = (prior.sample(seed, count=4) for prior in fitted)
    np.testing.assert_allclose(here, there, atol=0.05 * np.abs(pool).max())
    moved = fitted[0].on(device)
    assert moved.digest == fitted[0].digest
    # Nearer than a verifier asks of a candidate of the seed.
    np.testing.assert_allclose(here, moved.sample(seed, count=4), atol=5e-7)
    np.testing.assert_allclose(
        fitted[0].coarse().sample(seed, count=4),
        moved.coarse().sample(seed, count=4),
        atol=5e-7,
    )
    np.testing.assert_array_equal(moved.center(), fitted[0].center())


def test_a_posterior_is_sampled_alike(vit: Family, device: torch.device) -> None:
    examples, means = vit.examples(10), []
    for task in _tasks(vit, device, 1):
        pool = keyed_generator("pool").standard_normal((16, task.space.dimension))
        prior = DiffusionPrior.fit(pool, seed=1, training=DiffusionTraining(max_steps=50))
        means.append(
            posterior_means(
                prior.coarse().on(device),
                BatchedScorer(task.model(), margin_tolerance=TOLERANCE),
                examples,
                seed=derive_seed("posterior"),
                candidates=8,
                chains=3,
                steps=4,
            )
        )
    np.testing.assert_allclose(means[0], means[1], atol=1e-3)


def test_errors_are_counted_alike(
    any_family: Family, device: torch.device, tmp_path: Path
) -> None:
    examples, counts = any_family.examples(12), []
    for task in _tasks(any_family, device, 2):
        vector = _vectors(task.space, 1)[0]
        folder = tmp_path / task.base.device.type
        write_peft_adapter(task.space, vector, folder, base_name=task.base.name, base=task.base)
        counts.append(exported_wrong(task, folder, examples, margin_tolerance=TOLERANCE))
        reference = ReferenceScorer(task, margin_tolerance=TOLERANCE)
        scored = reference.score(vector[None], examples)
        np.testing.assert_array_equal(scored.wrong[0], counts[-1])
    np.testing.assert_array_equal(counts[0], counts[1])
