"""Any pretrained backbone becomes a base model that fedcert adapts, scores and exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_text import save_tiny_backbone, tiny_texts

from fedcert.adapters import AdapterSpace, FinetuneSettings, Task, finetune
from fedcert.adapters.peft_format import write_peft_adapter
from fedcert.data import TextInputs
from fedcert.errors import ModelError
from fedcert.models import BaseModel, load_base_model, with_label_phrases, with_task_head
from fedcert.search import BatchedScorer, ReferenceScorer, exported_wrong

LABELS = ["bad", "good"]
HEADS = {
    "bert": "classifier",
    "roberta": "classifier.out_proj",
    "llama": "score",
}


def _base(tmp_path: Path, family: str, *, pad: bool = True) -> BaseModel:
    source = save_tiny_backbone(tmp_path / "source", family, pad=pad)
    return load_base_model(str(with_task_head(source, LABELS, tmp_path / "base")), num_labels=2)


@pytest.mark.parametrize("family", list(HEADS))
def test_from_backbone_to_exported_adapter(family: str, tmp_path: Path) -> None:
    base = _base(tmp_path, family, pad=family != "llama")
    assert base.layout.head == HEADS[family]
    head = base.model.get_submodule(base.layout.head)
    assert all(not parameter.any() for parameter in head.parameters())
    assert base.model.config.id2label == {0: "bad", 1: "good"}

    spec = TextInputs.of(base.name, max_length=12)
    space = AdapterSpace.of(base, rank=2)
    model, examples = Task(base, space, spec).model(), tiny_texts(48)
    settings = FinetuneSettings(steps=40, learning_rate=0.1)
    result = finetune(model, examples, seed=0, settings=settings)
    assert result.error <= 0.15

    vectors = result.vector[None].astype(np.float64)
    scores = BatchedScorer(model, margin_tolerance=1e-5).score(vectors, examples)
    plain = ReferenceScorer(Task(base, space, spec), margin_tolerance=1e-5)
    reference = plain.score(vectors, examples)
    np.testing.assert_allclose(scores.losses, reference.losses, atol=1e-4)
    write_peft_adapter(space, result.vector, tmp_path / "adapter", base_name=base.name)
    wrong = exported_wrong(
        Task(base, space, spec), tmp_path / "adapter", examples, margin_tolerance=1e-5
    )
    assert (wrong == scores.wrong[0]).all()


def test_making_a_base_model_again_gives_the_cached_one(tmp_path: Path) -> None:
    source = save_tiny_backbone(tmp_path / "source", "bert")
    first = with_task_head(source, LABELS)
    assert with_task_head(source, LABELS) == first
    assert with_task_head(source, ["a", "b", "c"]) != first
    copy = with_task_head(source, LABELS, tmp_path / "copy")
    assert load_base_model(str(copy), num_labels=2).digest == (
        load_base_model(str(first), num_labels=2).digest
    )


@pytest.mark.parametrize("make", [with_task_head, with_label_phrases])
def test_labels_in_another_order_than_the_models_own_are_refused(
    make: Any, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    with_task_head(save_tiny_backbone(tmp_path / "source", "llama"), LABELS, base)
    expected = "has the labels bad, good, in this order, and the task has good, bad"
    for folder in (tmp_path / "other", None):
        with pytest.raises(ModelError, match=expected):
            make(base, LABELS[::-1], folder=folder)


def test_a_trained_head_is_left_out(tmp_path: Path) -> None:
    base = _base(tmp_path, "bert")
    with torch.no_grad():
        base.model.get_submodule("classifier").weight.add_(1.0)  # type: ignore[operator, union-attr]
    base.model.save_pretrained(tmp_path / "trained")
    (tmp_path / "trained" / "tokenizer.json").write_bytes(
        (tmp_path / "base" / "tokenizer.json").read_bytes()
    )
    (tmp_path / "trained" / "tokenizer_config.json").write_bytes(
        (tmp_path / "base" / "tokenizer_config.json").read_bytes()
    )
    again = with_task_head(tmp_path / "trained", ["a", "b", "c"], tmp_path / "again")
    loaded = load_base_model(str(again), num_labels=3)
    assert not loaded.model.get_submodule("classifier").weight.any()  # type: ignore[operator, union-attr]


def test_a_head_that_peft_cannot_tell_apart(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="'classifier' and 'pre_classifier'"):
        _base(tmp_path, "distilbert")


def test_dtype(tmp_path: Path) -> None:
    folder = str(with_task_head(save_tiny_backbone(tmp_path / "source", "bert"), LABELS))
    half = load_base_model(folder, num_labels=2, dtype="bfloat16")
    assert {p.dtype for p in half.model.parameters()} == {torch.bfloat16}
    spec, examples = TextInputs.of(folder, max_length=12), tiny_texts(48)
    adapted = Task(half, AdapterSpace.of(half, rank=2), spec).model()
    settings = FinetuneSettings(steps=40, learning_rate=0.1)
    assert finetune(adapted, examples, seed=0, settings=settings).error <= 0.15
    half.model.save_pretrained(tmp_path / "half")
    whole = load_base_model(str(tmp_path / "half"), num_labels=2)
    assert {p.dtype for p in whole.model.parameters()} == {torch.float32}
    with pytest.raises(ModelError, match="choose float32 or bfloat16"):
        load_base_model(folder, num_labels=2, dtype="int3")


def test_a_model_without_a_head_is_named(tmp_path: Path) -> None:
    source = save_tiny_backbone(tmp_path / "source", "bert")
    with pytest.raises(ModelError, match=r"no weights for classifier.*with_task_head"):
        load_base_model(str(source), num_labels=2)


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load a base model from the folder"):
        with_task_head(tmp_path, LABELS)
    with pytest.raises(ModelError, match="the hub does not give it"):
        with_task_head("nobody/nothing", LABELS)
    source = save_tiny_backbone(tmp_path / "source", "bert")
    for path in source.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        with_task_head(source, LABELS)
    source = save_tiny_backbone(tmp_path / "damaged", "bert")
    weights = source / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="cannot load a base model"):
        with_task_head(source, LABELS)
