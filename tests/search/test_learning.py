"""Finalists that are trained: from the prior's center, and on the frozen base model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import Family

from fedcert.adapters import AdapterSpace
from fedcert.data import Examples
from fedcert.data.examples import ALWAYS_WRONG
from fedcert.errors import CertificateError
from fedcert.priors import GaussianPrior, PointPrior
from fedcert.search import BatchedScorer, ReferenceScorer
from fedcert.search.learning import (
    _regression,
    finetuned,
    has_linear_head,
    local_head,
    posterior_mode,
    tuned_head,
)
from fedcert.search.linear_head import LinearHead

TRAINING = {"steps": 30, "learning_rate": 0.03, "pull": 0.01}


@pytest.fixture(scope="module")
def scorer(vit: Family) -> BatchedScorer:
    return BatchedScorer(vit.adapted(rank=2, last_layers=1), margin_tolerance=1e-4)


@pytest.fixture(scope="module")
def examples(vit: Family, scorer: BatchedScorer) -> Examples:
    """Return examples whose labels show in the input."""
    return vit.examples(40, seed=3)


@pytest.fixture
def center(scorer: BatchedScorer) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).normal(size=scorer.model.space.dimension)


def _loss(scorer: BatchedScorer, vector: np.ndarray, examples: Examples) -> float:
    return float(scorer.score(vector[None], examples).losses.mean())


def test_training_starts_at_the_center_and_lowers_the_loss(
    scorer: BatchedScorer, examples: Examples, center: np.ndarray
) -> None:
    vector = finetuned(scorer, examples, center, **TRAINING)
    assert (vector.shape, vector.dtype) == (center.shape, np.float64)
    assert _loss(scorer, vector, examples) < _loss(scorer, center, examples)
    none = finetuned(scorer, examples, center, **(TRAINING | {"learning_rate": 0.0}))
    np.testing.assert_array_equal(none, center)
    near = finetuned(scorer, examples, center, **(TRAINING | {"pull": 100.0}))
    assert np.linalg.norm(near - center) < 0.5 * np.linalg.norm(vector - center)


def test_it_repeats_itself_whatever_the_threads(
    scorer: BatchedScorer, examples: Examples, center: np.ndarray
) -> None:
    vector = finetuned(scorer, examples, center, **TRAINING)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            again = finetuned(scorer, examples, center, **TRAINING)
            np.testing.assert_allclose(again, vector, atol=1e-6)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)


def test_nothing_is_learned_from_one_label(
    scorer: BatchedScorer, examples: Examples, center: np.ndarray
) -> None:
    for labels in (1, ALWAYS_WRONG):
        same = Examples(examples.inputs, np.full(len(examples), labels))
        np.testing.assert_array_equal(finetuned(scorer, same, center, **TRAINING), center)


def _prior(center: np.ndarray) -> GaussianPrior:
    noise = np.random.default_rng(1).normal(size=(12, len(center)))
    return GaussianPrior.fit(center + 0.2 * noise, seed=0)


def test_a_mode_weighs_the_loss_against_the_prior(
    scorer: BatchedScorer, examples: Examples, center: np.ndarray
) -> None:
    prior = _prior(center)
    axes, middle, count = prior.axes(), prior.center(), len(examples)
    mode = posterior_mode(scorer, examples, prior, steps=300)
    assert (mode.shape, mode.dtype) == (center.shape, np.float64)
    moves = np.linalg.lstsq(axes.T, mode - middle, rcond=None)[0]
    np.testing.assert_allclose(middle + moves @ axes, mode, atol=1e-9)

    def joint(moves: np.ndarray) -> float:
        adapter = middle + moves @ axes
        return count * _loss(scorer, adapter, examples) + 0.5 * float(moves @ moves)

    reached = joint(moves)
    assert reached < joint(np.zeros(len(axes)))
    for axis in np.eye(len(axes)):
        assert reached < min(joint(moves + 0.3 * axis), joint(moves - 0.3 * axis))


def test_where_a_prior_draws_one_adapter_that_is_the_mode(
    scorer: BatchedScorer, examples: Examples, center: np.ndarray
) -> None:
    alone = PointPrior(center)
    np.testing.assert_array_equal(
        posterior_mode(scorer, examples, alone, steps=5), alone.center()
    )
    same = Examples(examples.inputs, np.full(len(examples), 1))
    prior = _prior(center)
    np.testing.assert_array_equal(posterior_mode(scorer, same, prior, steps=5), prior.center())


def test_a_local_head_learns_on_the_frozen_model_alone(
    scorer: BatchedScorer, examples: Examples
) -> None:
    vector = local_head(scorer, examples)
    space = scorer.model.space
    assert not vector[: len(space.targets) * space.rank**2].any()
    wrong = scorer.score(vector[None], examples).wrong.mean()
    frequent = np.bincount(examples.labels).max() / len(examples)
    assert wrong < 1 - frequent
    np.testing.assert_allclose(local_head(scorer, examples), vector, atol=1e-7)


def test_a_tuned_head_stands_on_the_center(
    scorer: BatchedScorer, examples: Examples, center: np.ndarray
) -> None:
    vector = tuned_head(scorer, examples, center)
    space = scorer.model.space
    body = len(space.targets) * space.rank**2
    np.testing.assert_array_equal(vector[:body], center[:body])
    assert _loss(scorer, vector, examples) < _loss(scorer, center, examples)
    none = Examples(examples.inputs, np.full(len(examples), ALWAYS_WRONG))
    np.testing.assert_array_equal(tuned_head(scorer, none, center), center)
    np.testing.assert_allclose(
        tuned_head(scorer, examples, np.zeros(len(center))), local_head(scorer, examples)
    )
    # Pulled to the center's head, and not to zero: few examples leave it nearer there.
    few = tuned_head(scorer, examples.take(slice(0, 4)), 10 * center)
    assert np.linalg.norm(few - 10 * center) < np.linalg.norm(few[body:])


def test_its_logits_are_those_of_the_regression(
    scorer: BatchedScorer, examples: Examples
) -> None:
    space = scorer.model.space
    features = LinearHead.of(scorer.model, np.zeros(space.dimension)).features(scorer, examples)
    labels, width = space.head[0].shape
    rng = np.random.default_rng(1)
    weight, bias = rng.normal(size=(labels, width)), rng.normal(size=labels)
    vector = np.zeros(space.dimension)
    vector[-(weight.size + labels) :] = np.concatenate([weight.ravel(), bias])
    [(_, logits)] = scorer.logits(vector[None], examples.inputs)
    expected = features @ weight.T + bias
    np.testing.assert_allclose(logits[0].numpy(), expected, atol=1e-4)


def test_examples_that_cannot_be_read_teach_nothing(
    scorer: BatchedScorer, examples: Examples
) -> None:
    labels = examples.labels.copy()
    labels[::4] = ALWAYS_WRONG
    some = Examples(examples.inputs, labels)
    expected = local_head(scorer, some.usable)
    np.testing.assert_array_equal(local_head(scorer, some), expected)
    none = Examples(examples.inputs, np.full(len(examples), ALWAYS_WRONG))
    assert not local_head(scorer, none).any()


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_a_regression_needs_few_examples(count: int) -> None:
    rng = np.random.default_rng(count)
    features, labels = rng.normal(size=(count, 5)), rng.integers(0, 3, count)
    head = LinearHead(np.zeros(18), np.zeros((3, 5)), 0, trained=True)
    weights = _regression(features, labels, np.zeros((count, 3)), head)
    assert weights.shape == (3, 5)
    assert np.isfinite(weights).all()


def test_a_scorer_without_a_model_of_its_own_trains_nothing(
    vit: Family, examples: Examples
) -> None:
    reference = ReferenceScorer(vit.adapted(rank=2).task, margin_tolerance=1e-4)
    with pytest.raises(CertificateError, match="no model that an adapter could be trained"):
        local_head(reference, examples)


def test_a_head_must_be_linear(vit: Family) -> None:
    space = AdapterSpace.of(vit.base, rank=2)
    assert has_linear_head(space)
    assert not has_linear_head(AdapterSpace(**{**vars(space), "head": ()}))
    assert not has_linear_head(AdapterSpace(**{**vars(space), "head": space.head * 2}))
