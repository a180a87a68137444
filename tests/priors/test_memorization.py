"""The memorization audit tells a replay from a prior that generalizes."""

from __future__ import annotations

import numpy as np
import pytest

from fedcert.priors import GaussianPrior, Prior, ResamplingPrior, audit_nearest_pool
from fedcert.priors.memorization import NearestPoolAudit, nearest_distances
from fedcert.randomness import keyed_generator

from .pools import gaussian_pool
from .prior_suite import SEED


def _audit(prior: Prior, **options: float) -> NearestPoolAudit:
    adapters = gaussian_pool(96)
    return audit_nearest_pool(
        prior, pool=adapters[:64], held_out=adapters[64:], seed=SEED, **options
    )


def test_a_replay_fails_loudly() -> None:
    audit = _audit(ResamplingPrior.fit(gaussian_pool(96)[:64], seed=0))
    assert audit.ratio < 1e-6
    assert not audit.passed
    assert (len(audit.samples), len(audit.held_out)) == (200, 32)


def test_a_gaussian_passes() -> None:
    audit = _audit(GaussianPrior.fit(gaussian_pool(96)[:64], seed=0))
    assert 0.8 < audit.ratio < 1.25
    assert audit.passed


def test_the_threshold_decides() -> None:
    prior = GaussianPrior.fit(gaussian_pool(96)[:64], seed=0)
    ratio = _audit(prior).ratio
    assert _audit(prior, threshold=ratio).passed
    assert not _audit(prior, threshold=ratio + 1e-9).passed


def test_nearest_distances_are_those_of_brute_force() -> None:
    generator = keyed_generator("nearest")
    points, pool = generator.standard_normal((7, 3)), generator.standard_normal((9, 3))
    every = np.linalg.norm(points[:, None] - pool[None], axis=-1)
    np.testing.assert_allclose(nearest_distances(points, pool), every.min(axis=1))
    assert nearest_distances(pool, pool) == pytest.approx(np.zeros(9), abs=1e-6)
