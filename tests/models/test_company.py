"""A text's label is its own: models for which it depends on its neighbors are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import Family
from tiny_text import save_tiny_backbone, tiny_texts, tiny_tokenizer

from fedcert.adapters import Task, write_peft_adapter
from fedcert.data import TextInputs
from fedcert.errors import ModelError
from fedcert.models import load_base_model, with_task_head
from fedcert.search import exported_wrong

LABELS = ["bad", "good"]
HALF = [1.0] * 2
ROPES: dict[str, dict[str, Any]] = {
    "longrope": {
        "factor": 4.0,
        "original_max_position_embeddings": 4,
        "short_factor": HALF,
        "long_factor": [30.0, 60.0],
    },
    "dynamic": {"factor": 4.0},
    "linear": {"factor": 4.0},
    "default": {},
}


def _source(folder: Path, rope: str) -> Path:
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=28, max_position_embeddings=16, hidden_size=8, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, intermediate_size=16, pad_token_id=0,
        initializer_range=0.5,
        rope_parameters={"rope_type": rope, "rope_theta": 100.0, **ROPES[rope]},
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaModel(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_frequencies_that_the_longest_text_chooses_are_refused(tmp_path: Path) -> None:
    folder = str(with_task_head(_source(tmp_path, "longrope"), LABELS, tmp_path / "base"))
    base = load_base_model(folder, num_labels=2)
    text = (
        "other values beside a long text than alone.*rope_type 'longrope' looks at the longest"
    )
    for _ in range(2):  # a refusal is not forgotten
        with pytest.raises(ModelError, match=text):
            TextInputs.of(folder, max_length=12).bound_to(base)
    TextInputs.of(folder, max_length=4).bound_to(base)  # where it does not happen


@pytest.mark.parametrize("rope", ["default", "linear", "dynamic"])
def test_other_frequencies_pass(tmp_path: Path, rope: str) -> None:
    folder = str(with_task_head(_source(tmp_path, rope), LABELS, tmp_path / "base"))
    TextInputs.of(folder, max_length=12).bound_to(load_base_model(folder, num_labels=2))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["bert", "roberta", "llama"])
def test_ordinary_models_pass(tmp_path: Path, family: str, dtype: str) -> None:
    source = save_tiny_backbone(tmp_path / "source", family)
    folder = str(with_task_head(source, LABELS, tmp_path / "base"))
    base = load_base_model(folder, num_labels=2, dtype=dtype)
    TextInputs.of(folder, max_length=16).bound_to(base)


def test_errors_are_counted_without_padding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the check misses: each text is counted among texts of its own length."""
    folder = str(with_task_head(_source(tmp_path, "longrope"), LABELS, tmp_path / "base"))
    base = load_base_model(folder, num_labels=2)
    monkeypatch.setattr("fedcert.data.text.check_company", lambda *_a, **_k: None)
    family = Family("llama", Path(folder), base, TextInputs.of(folder, max_length=12))
    space = family.space(rank=2, last_layers=1)
    vector = np.random.default_rng(0).standard_normal(space.dimension)
    write_peft_adapter(space, vector, tmp_path / "adapter", base_name="x")

    def wrong(examples: Any) -> np.ndarray:
        return exported_wrong(
            Task(base, space, family.inputs),
            tmp_path / "adapter",
            examples,
            margin_tolerance=0.0,
        )

    examples = tiny_texts(150)
    alone = [wrong(examples.take(slice(i, i + 1)))[0] for i in range(60)]
    np.testing.assert_array_equal(wrong(examples)[:60], alone)
