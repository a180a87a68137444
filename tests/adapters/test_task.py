"""A task: parts that fit together, and the model that knows how to read its inputs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_models import Family

from fedcert.adapters import Task
from fedcert.data.text import TextInputs
from fedcert.errors import AdapterError, DataError, ModelError


def test_a_task_has_parts_that_fit_together(vit: Family) -> None:
    space = replace(vit.space(), base_digest="0" * 64)
    with pytest.raises(AdapterError, match="belongs to another base model"):
        Task(vit.base, space, vit.inputs)
    with pytest.raises(ModelError, match="tokenizer"):
        Task(vit.base, vit.space(), TextInputs(8, "0" * 64))


def test_its_model_reads_examples_as_the_task_says(vit: Family) -> None:
    task, examples = Task(vit.base, vit.space(), vit.inputs), vit.examples(4)
    model = task.model()
    assert model.task is task
    encoded, expected = task.encode(examples), vit.inputs.encode(examples.inputs)
    assert encoded.keys() == expected.keys()
    assert all(torch.equal(encoded[name], expected[name]) for name in expected)
    vectors = torch.full((2, task.space.dimension), 0.1)
    assert model.logits(model.prepare(encoded), vectors).shape == (2, 4, 2)


def test_labels_of_a_trained_head_are_its_own(vit: Family) -> None:
    task = Task(vit.base, vit.space(), vit.inputs)
    assert task.labels == vit.base.label_names
    named = Task(vit.base, vit.space(), vit.inputs, ("off", "on"))
    assert named.labels == ("off", "on")
    with pytest.raises(DataError, match="has 2 labels"):
        task.with_labels(["a", "b", "c"])
