"""Drawing: constants stand in for the first draws, and change no other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny_models import Family

from fedcert.adapters import AdaptedModel
from fedcert.adapters.constants import constant_adapters
from fedcert.certificates import MixedUnionRecipe, UnionRecipe
from fedcert.errors import CertificateError
from fedcert.priors import GaussianPrior
from fedcert.search import BatchedScorer, draw

SEED = "5" * 64
MIXED = MixedUnionRecipe(candidates=20, delta=0.05, constants=2)


@pytest.fixture(scope="module")
def model(vit: Family) -> AdaptedModel:
    return vit.adapted(rank=2, last_layers=1)


@pytest.fixture(scope="module")
def constants(model: AdaptedModel) -> np.ndarray:
    found = constant_adapters(model.space, 2)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def prior(model: AdaptedModel) -> GaussianPrior:
    pool = np.random.default_rng(0).standard_normal((12, model.space.dimension))
    return GaussianPrior.fit(pool, seed=0)


@pytest.mark.parametrize(("start", "count"), [(0, 20), (0, 1), (1, 1), (1, 5), (2, 3), (9, 4)])
def test_any_range_is_cut_from_the_same_list(
    prior: GaussianPrior, constants: np.ndarray, start: int, count: int
) -> None:
    drawn = prior.sample(SEED, count=20)
    expected = np.concatenate([constants, drawn[2:]])[start : start + count]
    found = draw(MIXED, prior, constants, SEED, start=start, count=count)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    plain = draw(UnionRecipe(candidates=20, delta=0.05), prior, constants, SEED, count=20)
    np.testing.assert_array_equal(plain, drawn)


def test_a_constant_predicts_its_label_for_everything(
    vit: Family, model: AdaptedModel, constants: np.ndarray
) -> None:
    scorer = BatchedScorer(model, margin_tolerance=1e-4)
    predicted = scorer.predict(constants, vit.examples(40, seed=3).inputs)
    assert predicted.tolist() == [[0] * 40, [1] * 40]


def test_a_head_without_a_bias_for_the_labels_has_no_constants(model: AdaptedModel) -> None:
    assert len(constant_adapters(replace(model.space, head=(), head_module=""), 2)) == 0
    assert len(constant_adapters(model.space, 3)) == 0


@pytest.mark.parametrize("known", [0, 1, 3])
def test_another_number_of_constants_is_refused(
    prior: GaussianPrior, constants: np.ndarray, known: int
) -> None:
    others = np.zeros((known, constants.shape[1]))
    with pytest.raises(
        CertificateError, match=f"2 constant predictors, and this model {known}"
    ):
        draw(MIXED, prior, others, SEED, count=3)
