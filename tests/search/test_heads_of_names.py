"""Heads that start at the embeddings of the labels' names, and learn from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models.tiny_encoders import save_encoder
from tiny_text import tiny_texts

from fedcert.adapters import AdapterSpace, Task
from fedcert.data import Examples, TextInputs
from fedcert.data.examples import ALWAYS_WRONG
from fedcert.errors import AdapterError
from fedcert.models import load_base_model, with_label_names
from fedcert.search import BatchedScorer, ReferenceScorer
from fedcert.search.learning import has_linear_head, local_head, tuned_head
from fedcert.search.linear_head import LinearHead

NAMES = ("bad0 bad1", "good3", "bad7 good2")


@pytest.fixture(scope="module", params=[0, 3], ids=["own", "tied"])
def task(tmp_path_factory: Any, request: pytest.FixtureRequest) -> Task:
    folder: Path = tmp_path_factory.mktemp("names")
    made = with_label_names(
        save_encoder(folder / "source", "bert"), folder / "base", pooling="mean"
    )
    base = load_base_model(str(made))
    inputs = TextInputs.of(base.name, max_length=12)
    space = AdapterSpace.of(base, rank=2, tied=request.param)
    return Task(base, space, inputs).with_labels(NAMES)


@pytest.fixture(scope="module")
def scorer(task: Task) -> BatchedScorer:
    return BatchedScorer(task.model(), margin_tolerance=1e-4)


@pytest.fixture(scope="module")
def examples() -> Examples:
    return tiny_texts(40)


@pytest.fixture(scope="module")
def center(task: Task) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).normal(size=task.space.dimension)


def test_it_moves_the_labels_and_nothing_else(
    scorer: BatchedScorer, examples: Examples, center: np.ndarray
) -> None:
    assert has_linear_head(scorer.model.space)
    vector = tuned_head(scorer, examples, center)
    moves = vector[len(center) :].reshape(len(NAMES), -1)
    np.testing.assert_array_equal(vector[: len(center)], center)
    still = np.concatenate([center, np.zeros(moves.size)])
    before, after = scorer.score(center[None], examples), scorer.score(vector[None], examples)
    np.testing.assert_array_equal(scorer.score(still[None], examples).losses, before.losses)
    assert after.losses.mean() < before.losses.mean()
    head = LinearHead.of(scorer.model, center)
    [(_, start)] = scorer.logits(center[None], examples.inputs)
    [(_, moved)] = scorer.logits(vector[None], examples.inputs)
    expected = start[0].numpy() + head.features(scorer, examples) @ moves.T
    np.testing.assert_allclose(moved[0].numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(tuned_head(scorer, examples, center), vector, atol=1e-7)
    local = local_head(scorer, examples)
    assert not local[: len(center)].any()
    assert local[len(center) :].any()


def test_a_name_counts_as_one_example_of_its_label(
    scorer: BatchedScorer, examples: Examples, center: np.ndarray
) -> None:
    head = LinearHead.of(scorer.model, center)
    features = head.features(scorer, examples)
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    moves = head.gathered(features, examples.labels)
    for label, name in enumerate(head.weight):
        own = units[examples.labels == label]
        mean = (name + own.sum(axis=0)) / (1 + len(own))
        np.testing.assert_allclose(name + moves[label], mean, atol=1e-9)
    assert not moves[2].any()  # a label without an example stays at its name


def test_peft_runs_it_as_the_search_does(
    task: Task, scorer: BatchedScorer, examples: Examples, center: np.ndarray
) -> None:
    vector = tuned_head(scorer, examples, center)
    reference = ReferenceScorer(task, margin_tolerance=1e-4)
    for one in (vector, center, vector):  # nothing of one adapter is left under the next
        expected = reference.score(one[None], examples)
        found = scorer.score(one[None], examples)
        np.testing.assert_allclose(found.losses, expected.losses, atol=1e-4)


def test_it_learns_from_one_label_and_from_none(
    scorer: BatchedScorer, examples: Examples, center: np.ndarray
) -> None:
    same = Examples(examples.inputs, np.full(len(examples), 2))
    vector = tuned_head(scorer, same, center)
    losses = [scorer.score(v[None], same).losses.mean() for v in (center, vector)]
    assert losses[1] < losses[0]
    none = Examples(examples.inputs, np.full(len(examples), ALWAYS_WRONG))
    still = tuned_head(scorer, none, center)
    assert not still[len(center) :].any()


@pytest.mark.parametrize("more", [-1, 1, 2, 16])
def test_a_vector_that_fits_no_label_set_is_refused(
    more: int, scorer: BatchedScorer, examples: Examples, center: np.ndarray
) -> None:
    with pytest.raises(AdapterError, match="is not in this space"):
        scorer.score(np.zeros((1, len(center) + more)), examples)


def test_labels_cannot_be_moved_where_the_head_is_trained(vit: Any) -> None:
    space = AdapterSpace.of(vit.base, rank=2)
    with pytest.raises(AdapterError, match="is not in this space"):
        space.holding(space.dimension + 20, labels=10)
