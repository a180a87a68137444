"""Each prior keeps the contract of priors."""

from __future__ import annotations

import numpy as np

from fedcert.priors import (
    PRIORS,
    DiffusionPrior,
    DiffusionTraining,
    GaussianPrior,
    JitterPrior,
    Prior,
    ResamplingPrior,
)

from .pools import gaussian_pool
from .prior_suite import PriorContract


class TestGaussian(PriorContract):
    kind, least = "gaussian", 3

    @classmethod
    def fit(cls, pool: np.ndarray, *, seed: int = 0) -> GaussianPrior:
        return GaussianPrior.fit(pool, seed=seed)


class TestJitter(PriorContract):
    kind, least = "jitter", 4

    @classmethod
    def fit(cls, pool: np.ndarray, *, seed: int = 0) -> JitterPrior:
        return JitterPrior.fit(pool, seed=seed)


class TestResampling(PriorContract):
    kind, least = "pool", 1

    @classmethod
    def fit(cls, pool: np.ndarray, *, seed: int = 0) -> ResamplingPrior:
        return ResamplingPrior.fit(pool, seed=seed)


class TestDiffusion(PriorContract):
    kind, least = "diffusion", 10

    @classmethod
    def fit(cls, pool: np.ndarray, *, seed: int = 0) -> DiffusionPrior:
        training = DiffusionTraining(max_steps=40, batch_size=32, check_every=20)
        return DiffusionPrior.fit(pool, seed=seed, training=training)


def test_every_registered_prior_is_tested() -> None:
    tested = {suite.kind for suite in PriorContract.__subclasses__()}
    assert tested == PRIORS.keys()


class _OnASphere(GaussianPrior):
    """A prior of somebody's own: zero noise has no direction, and no adapter."""

    kind = "on a sphere"
    center = Prior.center

    def transform(self, noise: np.ndarray) -> np.ndarray:
        return super().transform(noise / np.linalg.norm(noise, axis=1, keepdims=True))


def test_a_prior_that_says_nothing_of_its_center_has_the_mean_of_its_draws() -> None:
    pool = gaussian_pool(32)
    prior = _OnASphere.fit(pool, seed=0)
    center = prior.center()
    assert (center.shape, center.dtype) == (pool[0].shape, np.float64)
    assert np.isfinite(center).all()
    assert np.abs(center - pool.mean(axis=0)).max() < 0.1 * pool.std(axis=0).max()
    np.testing.assert_array_equal(prior.center(), center)
