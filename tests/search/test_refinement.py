"""The posterior mean against a posterior that is known in closed form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fedcert.arrays import FloatArray
from fedcert.data.examples import Examples
from fedcert.priors import GaussianPrior, LatentSpace
from fedcert.randomness import derive_seed
from fedcert.search.refinement import posterior_means
from fedcert.search.scores import Scorer, Scores

SEED = derive_seed("test refinement")
PRECISION = 4.0


class _Quadratic(Scorer):
    """One example per coordinate; its loss is half the squared distance to its input."""

    def score(
        self,
        vectors: FloatArray,
        examples: Examples,
        *,
        on_scored: Callable[[int], None] = lambda _count: None,
    ) -> Scores:
        target = examples.inputs.astype(np.float64)
        losses = PRECISION / 2 * (vectors - target) ** 2
        return Scores(np.zeros(losses.shape, dtype=np.bool_), losses)


class _Broken(_Quadratic):
    """Nothing evaluates."""

    def score(
        self,
        vectors: FloatArray,
        examples: Examples,
        *,
        on_scored: Callable[[int], None] = lambda _count: None,
    ) -> Scores:
        losses = np.full((len(vectors), len(examples)), np.inf)
        return Scores(np.ones(losses.shape, dtype=np.bool_), losses)


@pytest.fixture
def prior() -> GaussianPrior:
    width = 3
    latent = LatentSpace(
        mean=np.array([1.0, -1.0, 0.0]),
        scale=np.ones(width),
        directions=np.eye(width),
        std=np.array([1.0, 0.5, 2.0]),
    )
    return GaussianPrior(latent)


def _examples() -> Examples:
    return Examples(np.array([2.0, 0.0, -1.5]), np.zeros(3, dtype=np.int64))


def _mean(prior: GaussianPrior, scorer: Scorer, *, seed: str = SEED) -> FloatArray:
    (mean,) = posterior_means(
        prior, scorer, _examples(), seed=seed, candidates=200, chains=64, steps=200
    )
    return mean


def test_it_is_the_posterior_mean_of_a_conjugate_model(prior: GaussianPrior) -> None:
    variances = np.array([1.0, 0.25, 4.0])
    means, targets = np.array([1.0, -1.0, 0.0]), np.array([2.0, 0.0, -1.5])
    expected = (means / variances + PRECISION * targets) / (1 / variances + PRECISION)
    got = _mean(prior, _Quadratic(margin_tolerance=0.0))
    np.testing.assert_allclose(got, expected, atol=0.05)
    # Neither the prior's mean nor the nearest fit to the data would pass.
    assert np.abs(expected - means).min() > 0.1
    assert np.abs(expected - targets).min() > 0.05


def test_the_same_seed_gives_the_same_adapter(prior: GaussianPrior) -> None:
    scorer = _Quadratic(margin_tolerance=0.0)
    first, again = _mean(prior, scorer), _mean(prior, scorer)
    assert first.tobytes() == again.tobytes()
    assert not np.array_equal(first, _mean(prior, scorer, seed=derive_seed("other")))


def test_candidates_that_all_fail_leave_an_adapter_of_the_prior(prior: GaussianPrior) -> None:
    got = _mean(prior, _Broken(margin_tolerance=0.0))
    assert np.isfinite(got).all()


def test_all_work_is_told(prior: GaussianPrior) -> None:
    told: list[int] = []
    posterior_means(
        prior,
        _Quadratic(margin_tolerance=0.0),
        _examples(),
        seed=SEED,
        candidates=1500,
        chains=8,
        steps=10,
        on_scored=told.append,
    )
    assert sum(told) == 1500 + 8 * 10


def test_several_means_share_the_chains(prior: GaussianPrior) -> None:
    scorer = _Quadratic(margin_tolerance=0.0)
    settings = {"seed": SEED, "candidates": 200, "chains": 64, "steps": 50}
    pair = posterior_means(prior, scorer, _examples(), count=2, **settings)
    (whole,) = posterior_means(prior, scorer, _examples(), **settings)
    assert pair.shape == (2, 3)
    assert not np.array_equal(*pair)
    np.testing.assert_allclose(pair.mean(axis=0), whole, atol=1e-12)
