"""Encoders that are read at all tokens: padding is not computed, and bfloat16 is no fault."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models.tiny_encoders import NAMES, save_sentence_encoder
from tiny_text import tiny_texts

from fedcert.adapters import AdaptedModel, AdapterSpace, FinetuneSettings, Task, finetune
from fedcert.adapters.finetune import descend
from fedcert.adapters.self_check import problem_of
from fedcert.data import Examples, TextInputs
from fedcert.models import load_base_model, with_label_names
from fedcert.search import BatchedScorer

SETTINGS = FinetuneSettings(steps=12, batch_size=10, learning_rate=0.1)


@pytest.fixture
def model(tmp_path: Path) -> AdaptedModel:
    source = save_sentence_encoder(tmp_path / "source", "bert")
    with warnings.catch_warnings():  # tiny models hardly tell their labels apart
        warnings.simplefilter("ignore")
        base = load_base_model(str(with_label_names(source, tmp_path / "base")))
        base = base.with_labels(NAMES[:2])
    inputs = TextInputs.of(base.name, max_length=12)
    return Task(base, AdapterSpace.of(base, rank=2), inputs).model()


def _uneven(count: int) -> Examples:
    examples = tiny_texts(count)
    texts = [" ".join(text.split()[: 1 + row % 8]) for row, text in enumerate(examples.inputs)]
    return Examples(np.array(texts, dtype=object), examples.labels)


def test_training_computes_hardly_any_padding(
    model: AdaptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples, widths = _uneven(40), []
    whole = model.prepare(model.task.encode(examples))
    assert whole.read is None

    vector = torch.zeros(1, model.space.dimension, requires_grad=True)
    padded = descend(
        model, examples, [vector], lambda: vector, seed=3, settings=SETTINGS, prepared=whole
    )
    run = model.logits

    def logits(prepared: Any, vectors: torch.Tensor) -> torch.Tensor:
        widths.append(prepared.hidden.shape[1])
        return run(prepared, vectors)

    monkeypatch.setattr(model, "logits", logits)
    trained = finetune(model, examples, seed=3, settings=SETTINGS)
    assert len(set(widths)) > 1
    np.testing.assert_allclose(trained.vector, vector.detach()[0].numpy(), atol=1e-4)
    assert trained.error == padded.fit()[1]
    assert trained.loss == pytest.approx(padded.fit()[0], abs=1e-4)


def test_candidates_rank_in_bfloat16(model: AdaptedModel) -> None:
    """Their head gives float32 whatever its layers compute in."""
    low = BatchedScorer(model, margin_tolerance=1e-4, precision="bfloat16")
    exact = BatchedScorer(model, margin_tolerance=1e-4)
    vectors = np.random.default_rng(0).normal(size=(5, model.space.dimension))
    losses = [scorer.score(vectors, _uneven(24)).losses for scorer in (low, exact)]
    np.testing.assert_allclose(losses[0], losses[1], atol=0.5)
    whole = torch.ones(3, 2)  # float32, as the head gives it
    assert problem_of(lambda: whole + 1e-2, whole, torch.bfloat16) == ""
    assert problem_of(lambda: whole + 1e-2, whole, torch.float32) != ""
