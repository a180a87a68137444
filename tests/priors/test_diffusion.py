"""The diffusion prior: anchored at the Gaussian, and better where the pool is not one."""

from __future__ import annotations

import numpy as np
import pytest

from fedcert.priors import DiffusionPrior, DiffusionTraining, GaussianPrior

from .pools import corner_distances, cube_pool, gaussian_pool
from .prior_suite import SEED

TRAINING = DiffusionTraining(max_steps=300, batch_size=64, check_every=25)


@pytest.fixture(scope="module")
def cube() -> DiffusionPrior:
    return DiffusionPrior.fit(cube_pool(128), seed=0, training=TRAINING)


def test_an_untrained_prior_is_the_gaussian() -> None:
    pool = cube_pool(64)
    untrained = DiffusionPrior.fit(pool, seed=0, training=DiffusionTraining(max_steps=0))
    assert untrained.report.best_step == 0
    assert untrained.report.best_loss == untrained.report.anchor_loss
    ours = untrained.latent.encode(untrained.sample(SEED, count=50))
    theirs = untrained.latent.encode(GaussianPrior.fit(pool, seed=0).sample(SEED, count=50))
    # The sampler's 40 steps stretch all latents alike, by a third of a percent.
    np.testing.assert_allclose(ours, 1.00335 * theirs, rtol=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_gaussian_pool_stays_at_the_anchor(seed: int) -> None:
    pool = gaussian_pool(128, seed=seed)
    training = DiffusionTraining(max_steps=100, batch_size=64, check_every=25)
    report = DiffusionPrior.fit(pool, seed=seed, training=training).report
    assert report.best_loss <= report.anchor_loss
    # Held-out adapters confirm nothing, or next to nothing.
    assert report.best_loss > 0.98 * report.anchor_loss


def test_a_cube_is_learned(cube: DiffusionPrior) -> None:
    assert cube.report.best_step > 0
    assert cube.report.best_loss < 0.92 * cube.report.anchor_loss


def test_samples_of_a_cube_come_to_its_corners(cube: DiffusionPrior) -> None:
    gaussian = GaussianPrior.fit(cube_pool(128), seed=0)
    ours = np.median(corner_distances(cube.sample(SEED, count=300)))
    theirs = np.median(corner_distances(gaussian.sample(SEED, count=300)))
    assert ours < 0.5 * theirs


def test_samples_reach_corners_that_the_pool_lacks() -> None:
    """24 adapters hold at most 24 of the 64 corners; a replay would give no others."""
    pool = cube_pool(24)
    known = set(map(tuple, np.sign(_latents(pool)).astype(int)))
    prior = DiffusionPrior.fit(pool, seed=0, training=TRAINING)
    drawn = set(map(tuple, np.sign(_latents(prior.sample(SEED, count=400))).astype(int)))
    assert len(drawn - known) > 20


def _latents(adapters: np.ndarray) -> np.ndarray:
    from .pools import CENTER, MIXING

    return (adapters - CENTER) @ np.linalg.pinv(MIXING)


def test_training_stops_when_patience_is_over() -> None:
    steps: list[tuple[int, int]] = []
    training = DiffusionTraining(max_steps=5000, batch_size=16, check_every=10, patience=50)
    prior = DiffusionPrior.fit(
        gaussian_pool(32),
        seed=0,
        training=training,
        on_step=lambda done, most: steps.append((done, most)),
    )
    assert steps[0] == (10, 5000)
    assert steps[-1][0] == prior.report.best_step + 50


def test_the_seed_of_the_fit_matters(cube: DiffusionPrior) -> None:
    other = DiffusionPrior.fit(cube_pool(128), seed=1, training=TRAINING)
    assert other.digest != cube.digest
