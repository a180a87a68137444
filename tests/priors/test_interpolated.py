"""Keeping a share of a global adapter in every candidate."""

from __future__ import annotations

import numpy as np
import pytest

from fedcert.errors import PriorError, SettingsError
from fedcert.priors import (
    PRIORS,
    DiffusionPrior,
    DiffusionTraining,
    GaussianPrior,
    InterpolatedPrior,
)
from fedcert.settings import RunSettings

from .pools import DIMENSION, gaussian_pool
from .prior_suite import rebuilt

SEED = "ab" * 32
CENTER = np.arange(DIMENSION, dtype=np.float64)


def _prior(keep: float) -> tuple[GaussianPrior, InterpolatedPrior]:
    rest = GaussianPrior.fit(gaussian_pool(32), seed=0)
    return rest, InterpolatedPrior(rest, center=CENTER, keep=keep)


@pytest.mark.parametrize("keep", [0.0, 0.25, 1.0])
def test_candidates_are_mixed_with_the_global_adapter(keep: float) -> None:
    rest, mixed = _prior(keep)
    expected = keep * CENTER + (1 - keep) * rest.sample(SEED, count=7)
    np.testing.assert_allclose(mixed.sample(SEED, count=7), expected, atol=1e-12)
    assert mixed.digest != rest.digest
    assert mixed.digest != _prior(0.5)[1].digest


def test_its_axes_are_as_much_shorter_as_it_keeps() -> None:
    rest, mixed = _prior(0.25)
    np.testing.assert_array_equal(mixed.axes(), 0.75 * rest.axes())


def test_its_parts_are_all_of_it() -> None:
    _, mixed = _prior(0.25)
    loaded = rebuilt(mixed)
    assert loaded.digest == mixed.digest
    np.testing.assert_array_equal(loaded.sample(SEED, count=3), mixed.sample(SEED, count=3))


def test_the_coarse_sampler_is_mixed_as_well() -> None:
    training = DiffusionTraining(max_steps=20)
    rest = DiffusionPrior.fit(gaussian_pool(32), seed=0, training=training)
    coarse = InterpolatedPrior(rest, center=CENTER, keep=0.5).coarse()
    expected = 0.5 * CENTER + 0.5 * rest.coarse().sample(SEED, count=3)
    np.testing.assert_allclose(coarse.sample(SEED, count=3), expected, atol=1e-12)


@pytest.mark.parametrize("keep", [-0.1, 1.1, float("nan")])
def test_a_share_must_be_one(keep: float) -> None:
    with pytest.raises(PriorError, match="between 0 and 1"):
        _prior(keep)


def test_the_global_adapter_must_fit() -> None:
    rest, _ = _prior(0.5)
    for center in (CENTER[1:], np.full(DIMENSION, np.nan)):
        with pytest.raises(PriorError, match="finite numbers"):
            InterpolatedPrior(rest, center=center, keep=0.5)


def test_it_is_made_from_another_prior_and_not_chosen_by_its_kind() -> None:
    assert "interpolated" not in PRIORS
    with pytest.raises(PriorError, match="made from another"):
        InterpolatedPrior.fit(gaussian_pool(32), seed=0)


def test_a_federated_prior_has_no_mean_to_keep() -> None:
    with pytest.raises(SettingsError, match=r"prior\.keep"):
        RunSettings.from_mapping({"prior": {"training": "federated", "keep": 0.5}})
