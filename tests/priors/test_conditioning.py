"""Conditional priors: better where conditions tell something, the same where they do not."""

from __future__ import annotations

import numpy as np
import pytest

from fedcert.errors import PriorError
from fedcert.priors import GaussianPrior, JitterPrior, Prior, prior_from_parts
from fedcert.priors.conditioning import Condition, ConditionalPrior
from fedcert.randomness import keyed_generator

from .pools import CENTER, MIXING, cube_pool, gaussian_pool

SEED = "0123456789abcdef" * 4
COUNT, NEW = 100, 40


def _latents(adapters: np.ndarray) -> np.ndarray:
    return (adapters - CENTER) @ np.linalg.pinv(MIXING)


def _informative(adapters: np.ndarray, seed: int) -> np.ndarray:
    """Describe half of the latents, noisily, among coordinates that say nothing."""
    generator = keyed_generator("conditions", seed)
    latents = _latents(adapters)[:, :3]
    said = latents + 0.3 * generator.standard_normal(latents.shape)
    nothing = generator.standard_normal((len(adapters), 5))
    return np.hstack([said, nothing, np.ones((len(adapters), 1))])


def _noise(count: int, seed: int) -> np.ndarray:
    return keyed_generator("pure noise", seed).standard_normal((count, 20))


def _best_of(prior: Prior, wanted: np.ndarray, m: int = 30) -> float:
    """Return the distance of the nearest of M candidates to an adapter, in latents."""
    candidates = _latents(prior.sample(SEED, count=m))
    return float(np.linalg.norm(candidates - _latents(wanted[None]), axis=1).min())


def _fit(pool: np.ndarray, conditions: np.ndarray) -> ConditionalPrior:
    return ConditionalPrior.fit_conditional(pool, conditions, rest=GaussianPrior, seed=0)


def test_informative_conditions_improve_the_best_of_m() -> None:
    pool, fresh = gaussian_pool(COUNT), gaussian_pool(NEW, seed=1)
    prior, plain = _fit(pool, _informative(pool, 0)), GaussianPrior.fit(pool, seed=0)
    said = _informative(fresh, 1)
    ours = np.mean([_best_of(prior.given(c), a) for a, c in zip(fresh, said, strict=True)])
    theirs = np.mean([_best_of(plain, adapter) for adapter in fresh])
    assert ours < 0.75 * theirs


def test_a_condition_of_somebody_else_does_worse() -> None:
    pool, fresh = gaussian_pool(COUNT), gaussian_pool(NEW, seed=1)
    prior, said = _fit(pool, _informative(pool, 0)), _informative(fresh, 1)
    own = np.mean([_best_of(prior.given(c), a) for a, c in zip(fresh, said, strict=True)])
    swapped = np.mean(
        [_best_of(prior.given(c), a) for a, c in zip(fresh, said[::-1], strict=True)]
    )
    assert own < 0.8 * swapped


@pytest.mark.parametrize("seed", range(8))
def test_noise_for_conditions_changes_nothing(seed: int) -> None:
    pool = gaussian_pool(COUNT)
    prior = _fit(pool, _noise(COUNT, seed))
    condition = _noise(1, seed + 100)[0]
    plain = GaussianPrior.fit(pool, seed=0).sample(SEED, count=20)
    np.testing.assert_allclose(prior.given(condition).sample(SEED, count=20), plain, atol=1e-9)


def test_what_is_left_is_as_wide_as_new_clients_need() -> None:
    pool = gaussian_pool(40)
    conditions = np.hstack([_informative(pool, 0), _noise(40, 0)])  # nearly as many as adapters
    prior = _fit(pool, conditions)
    fresh = gaussian_pool(200, seed=1)
    said = np.hstack([_informative(fresh, 1), _noise(200, 1)])
    centers = [prior.given(c).sample(SEED, count=400).mean(axis=0) for c in said]
    missed = _latents(fresh) - _latents(np.array(centers))
    drawn = _latents(prior.sample(SEED, count=400))
    assert drawn.std(axis=0).mean() > 0.8 * missed.std(axis=0).mean()


def test_it_is_saved_with_its_condition() -> None:
    pool = cube_pool(60)
    said = _informative(pool, 0)
    prior = ConditionalPrior.fit_conditional(pool, said, rest=JitterPrior, seed=0)
    for ours in (prior, prior.given(said[0])):
        again = prior_from_parts(ours.kind, ours.config(), ours.tensors())
        assert again.digest == ours.digest
        np.testing.assert_array_equal(again.sample(SEED, count=3), ours.sample(SEED, count=3))
    assert prior.given(said[0]).digest != prior.given(said[1]).digest != prior.digest


def test_mistakes_are_said() -> None:
    pool = gaussian_pool(20)
    with pytest.raises(PriorError, match="20 adapters need a matrix of as many conditions"):
        _fit(pool, np.ones((19, 2)))
    with pytest.raises(PriorError, match="NaN"):
        _fit(pool, np.full((20, 2), np.nan))
    with pytest.raises(PriorError, match="needs a condition for every adapter"):
        ConditionalPrior.fit(pool, seed=0)
    with pytest.raises(PriorError, match=r"the condition has 3 numbers; .* 20"):
        _fit(pool, _noise(20, 0)).given(np.zeros(3))
    with pytest.raises(PriorError, match="must say what it was computed from"):
        Condition(np.zeros(2), "examples")
    with pytest.raises(PriorError, match="finite"):
        Condition.from_text("mine", lambda _text: np.array([np.inf]))
