"""Tiny random base models of several families, and examples that they can learn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedcert.adapters import AdaptedModel, AdapterSpace, Task
from fedcert.data import Examples, ImageInputs, InputSpec
from fedcert.models import BaseModel, load_base_model
from fedcert.randomness import keyed_generator

WORDS, LENGTH = 50, 7


@dataclass(frozen=True)
class TokenInputs(InputSpec):
    """Token ids, padded with zeros at the end."""

    kind = "tokens"

    def normalize(self, raw: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        return np.asarray(raw, dtype=np.int64)

    def encode(self, inputs: npt.NDArray[Any]) -> dict[str, torch.Tensor]:
        ids = torch.from_numpy(np.ascontiguousarray(inputs))
        return {"input_ids": ids, "attention_mask": (ids > 0).long()}

    def to_config(self) -> dict[str, Any]:
        return {"kind": self.kind}


@dataclass(frozen=True)
class Family:
    """A base model, as loaded from its folder, and how to feed it."""

    name: str
    folder: Path
    base: BaseModel
    inputs: InputSpec

    def fresh(self) -> BaseModel:
        """Load the base model once more."""
        return load_base_model(str(self.folder), num_labels=2)

    def space(self, *, rank: int = 3, last_layers: int = 2, tied: int = 0) -> AdapterSpace:
        return AdapterSpace.of(self.base, rank=rank, last_layers=last_layers, tied=tied)

    def adapted(self, **of: int) -> AdaptedModel:
        return Task(self.base, self.space(**of), self.inputs).model()

    def examples(self, count: int, *, seed: int = 0) -> Examples:
        """Draw labeled inputs; the label shows in the input."""
        generator = keyed_generator("tests", self.name, seed)
        labels = generator.integers(0, 2, count)
        if isinstance(self.inputs, ImageInputs):
            images = generator.uniform(0, 8, (count, 1, 8, 8))
            images[:, :, :4] += 6.0 * labels[:, None, None, None]
            return Examples(images.astype(np.float32), labels)
        words = generator.integers(1, WORDS // 2, (count, LENGTH))
        words += (WORDS // 2) * labels[:, None]
        lengths = generator.integers(3, LENGTH + 1, count)
        words[np.arange(LENGTH) >= lengths[:, None]] = 0
        return Examples(words, labels)

    def encoded(self, count: int, *, seed: int = 0) -> dict[str, torch.Tensor]:
        return self.inputs.encode(self.examples(count, seed=seed).inputs)


def make_family(name: str, folder: Path) -> Family:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _BUILD[name]()
    model.save_pretrained(folder)
    inputs = ImageInputs(1, 8, 8, 0.0, 16.0) if name == "vit" else TokenInputs()
    return Family(name, folder, load_base_model(str(folder), num_labels=2), inputs)


# The default range of .02 would make tiny models blind to their inputs.
_SIZE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "initializer_range": 0.2,
    "num_labels": 2,
}
_TEXT: dict[str, Any] = {"vocab_size": WORDS, "max_position_embeddings": 16}
_DECODER: dict[str, Any] = {"num_key_value_heads": 1, "pad_token_id": 0}


def _vit() -> Any:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(image_size=8, patch_size=4, num_channels=1, **_SIZE)
    return ViTForImageClassification(config)


def _bert() -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig(**_SIZE, **_TEXT))


def _roberta() -> Any:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    config = RobertaConfig(**_SIZE, **_TEXT, pad_token_id=0)
    return RobertaForSequenceClassification(config)


def _llama() -> Any:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    return LlamaForSequenceClassification(LlamaConfig(**_SIZE, **_TEXT, **_DECODER))


def _qwen() -> Any:
    from transformers import Qwen2Config, Qwen2ForSequenceClassification

    window = {"use_sliding_window": True, "sliding_window": 2, "max_window_layers": 1}
    config = Qwen2Config(**_SIZE, **_TEXT, **_DECODER, **window)
    return Qwen2ForSequenceClassification(config)


_BUILD = {
    "vit": _vit,
    "bert": _bert,
    "llama": _llama,
    "roberta": _roberta,
    "qwen": _qwen,
}
