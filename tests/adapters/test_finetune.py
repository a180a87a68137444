"""Local fine-tuning: it learns, and it is reproducible."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import Family

from fedcert.adapters import FinetuneResult, FinetuneSettings, finetune
from fedcert.data import Examples
from fedcert.errors import DataError

SETTINGS = FinetuneSettings(steps=40, batch_size=16)


def _train(family: Family, examples: Examples, *, seed: int = 0) -> FinetuneResult:
    model = family.adapted(last_layers=1)
    return finetune(model, examples, seed=seed, settings=SETTINGS)


def test_the_loss_falls(family: Family) -> None:
    examples = family.examples(40)
    result = _train(family, examples)
    assert result.examples == 40
    assert result.loss < 0.5 < np.log(2)  # a zero vector starts at log 2
    assert result.error < 0.3
    assert result.vector.dtype == np.float32


def test_loss_and_error_are_those_of_the_vector(family: Family) -> None:
    examples, model = family.examples(40), family.adapted(last_layers=1)
    result = _train(family, examples)
    with torch.no_grad():
        prepared = model.prepare(family.inputs.encode(examples.inputs))
        logits = model.logits(prepared, torch.from_numpy(result.vector)[None])[0]
    labels = torch.from_numpy(examples.labels)
    assert result.loss == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits, labels))
    )
    assert result.error == pytest.approx(float((logits.argmax(-1) != labels).float().mean()))


def test_the_same_seed_gives_the_same_bits(family: Family) -> None:
    examples = family.examples(40)
    first = _train(family, examples).vector
    torch.manual_seed(123)  # the global state must not matter
    np.testing.assert_array_equal(_train(family, examples).vector, first)
    assert not np.array_equal(_train(family, examples, seed=1).vector, first)


def test_a_client_with_few_examples_uses_all_of_them(family: Family) -> None:
    """Then there is nothing to draw, and the seed plays no part."""
    examples = family.examples(16)
    np.testing.assert_array_equal(
        _train(family, examples).vector, _train(family, examples, seed=1).vector
    )


def test_weight_decay_bounds_the_vector(vit: Family) -> None:
    examples, model = vit.examples(40), vit.adapted(last_layers=1)
    norms = []
    for decay in (0.0, 1.0):
        settings = FinetuneSettings(steps=25, weight_decay=decay)
        result = finetune(model, examples, seed=0, settings=settings)
        norms.append(np.linalg.norm(result.vector))
    assert norms[1] < 0.8 * norms[0]


def test_no_examples_are_refused(vit: Family) -> None:
    with pytest.raises(DataError, match="there are no examples to train on"):
        _train(vit, vit.examples(0))


def test_one_class_is_refused(vit: Family) -> None:
    examples = vit.examples(12)
    alike = Examples(examples.inputs, np.ones(12, dtype=np.int64))
    with pytest.raises(DataError, match="all 12 training examples have the same label"):
        _train(vit, alike)
