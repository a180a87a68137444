"""Adapters that differ in their heads alone are scored as any others, and faster."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from models.tiny_encoders import WORDS, save_sentence_encoder

from fedcert.adapters import AdaptedModel, AdapterSpace, FinetuneSettings, Task
from fedcert.adapters.finetune import finetune
from fedcert.adapters.head_training import finetune_head
from fedcert.adapters.shared_layers import SharedLayers, head_size
from fedcert.data import Examples, TextInputs
from fedcert.errors import DataError
from fedcert.models import load_base_model, with_task_head
from fedcert.priors import GaussianPrior
from fedcert.randomness import derive_seed, keyed_generator
from fedcert.search import BatchedScorer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> AdaptedModel:
    folder = tmp_path_factory.mktemp("encoder")
    source = save_sentence_encoder(folder / "sentences")
    path = with_task_head(source, ("bad", "fair", "good"), folder / "base")
    base = load_base_model(str(path), num_labels=3)
    space = AdapterSpace.of(base, rank=2)
    return Task(
        base, space, TextInputs.of(str(path), max_length=12), ("bad", "fair", "good")
    ).model()


@pytest.fixture(scope="module")
def examples() -> Examples:
    generator = keyed_generator("tests/shared layers")
    texts = [" ".join(generator.choice(WORDS, 1 + i % 6)) for i in range(40)]
    return Examples(np.array(texts, dtype=object), np.arange(40) % 3)


def _vectors(model: AdaptedModel, *, layers: float) -> np.ndarray:
    generator = keyed_generator("tests/shared layers/vectors")
    vectors = generator.standard_normal((30, model.space.dimension))
    vectors[:, : -head_size(model.base)] = layers
    return vectors


@pytest.mark.parametrize("layers", [0.0, 0.7])
def test_the_logits_are_those_of_the_whole_model(
    model: AdaptedModel, examples: Examples, layers: float
) -> None:
    vectors = _vectors(model, layers=layers)
    prepared = model.prepare(model.task.encode(examples))
    block = torch.from_numpy(vectors).float()
    with torch.no_grad():
        whole = model.logits(prepared, block)
    shared = SharedLayers(model)
    assert shared.among(block)
    torch.testing.assert_close(shared.logits(prepared, block), whole, atol=1e-4, rtol=1e-4)
    # Other layers, the same inputs: nothing of before is used.
    block[:, 0] = 1.5
    with torch.no_grad():
        other = model.logits(prepared, block)
    torch.testing.assert_close(shared.logits(prepared, block), other, atol=1e-4, rtol=1e-4)


def test_adapters_that_differ_below_their_heads_run_in_full(model: AdaptedModel) -> None:
    block = torch.from_numpy(_vectors(model, layers=0.5)).float()
    block[3, 1] += 1e-3
    assert not SharedLayers(model).among(block)
    assert not SharedLayers(model).among(block[:1])  # alone it gains nothing


def test_a_scorer_runs_the_layers_once(
    model: AdaptedModel, examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = BatchedScorer(model, margin_tolerance=1e-4)
    plain = scorer.score(_vectors(model, layers=0.0), examples)
    calls: list[int] = []
    logits = AdaptedModel.logits

    def counted(self: AdaptedModel, *arguments: torch.Tensor) -> torch.Tensor:
        calls.append(len(arguments[1]))
        return logits(self, *arguments)

    monkeypatch.setattr(AdaptedModel, "logits", counted)
    again = scorer.score(_vectors(model, layers=0.0), examples)
    assert calls == []  # the embeddings are known
    assert np.array_equal(plain.wrong, again.wrong)


def test_a_head_trains_as_it_does_under_frozen_layers(
    model: AdaptedModel, examples: Examples
) -> None:
    settings = FinetuneSettings(steps=40, learning_rate=0.1, head_only=True)
    result = finetune_head(model, examples, seed=0, settings=settings)
    assert not result.vector[: -head_size(model.base)].any()
    assert result.loss < np.log(3) - 0.02
    whole = finetune(model, examples, seed=0, settings=FinetuneSettings(steps=1))
    assert whole.vector.shape == result.vector.shape
    again = finetune_head(model, examples, seed=0, settings=settings)
    assert np.array_equal(again.vector, result.vector)
    one = examples.take(np.flatnonzero(examples.labels == 0))
    with pytest.raises(DataError, match="have fewer than two labels"):
        finetune_head(model, one, seed=0, settings=settings)


def test_candidates_of_heads_leave_the_layers_exactly_as_they_are(model: AdaptedModel) -> None:
    pool = _vectors(model, layers=0.0)
    drawn = GaussianPrior.fit(pool, seed=0).sample(derive_seed("tests"), count=50)
    assert not drawn[:, : -head_size(model.base)].any()
    assert drawn[:, -head_size(model.base) :].any()


def test_training_is_asked_for_in_the_words_of_before() -> None:
    assert "head_only" not in FinetuneSettings().to_config()
    alone = FinetuneSettings(head_only=True)
    assert FinetuneSettings(**alone.to_config()) == alone
