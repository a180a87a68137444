"""Each prior keeps the contract of priors."""

from __future__ import annotations

import numpy as np

from fedcert.priors import (
    PRIORS,
    DiffusionPrior,
    DiffusionTraining,
    GaussianPrior,
    JitterPrior,
    ResamplingPrior,
)

from .prior_suite import PriorContract


class TestGaussian(PriorContract):
    kind, least = "gaussian", 4

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
