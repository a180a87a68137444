"""The models of ``make bench-scale``: one that is pretrained, and two of random weights."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from fedcert.adapters import AdapterSpace, Task
from fedcert.data import Examples, ImageInputs, InputSpec
from fedcert.devices import resolve_device
from fedcert.models import load_base_model
from fedcert.randomness import keyed_generator
from fedcert.scenarios import load_scenario

__all__ = ["DECODER", "MINILM", "VIT", "TokenIds", "save_random_models", "task_and_examples"]

MINILM, VIT, DECODER = "MiniLM", "ViT-B", "decoder"

LABELS, RANK = 4, 4
# Tokens of a text for the decoder.
_TOKENS = 64
# The size of ViT-B/16 (Dosovitskiy et al., arXiv 2010.11929).
_VIT: dict[str, Any] = {"image_size": 224, "patch_size": 16, "num_labels": LABELS}
_DECODER: dict[str, Any] = {
    "vocab_size": 32_000,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "num_labels": LABELS,
}
# So that a model is saved in several files.
_SHARD = "200MB"


@dataclass(frozen=True)
class TokenIds(InputSpec):
    """Token ids of one length: a model of random weights has no tokenizer."""

    kind: ClassVar[str] = "token ids"

    def normalize(self, raw: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Take them as they are."""
        return np.asarray(raw, dtype=np.int64)

    def encode(self, inputs: npt.NDArray[Any]) -> dict[str, torch.Tensor]:
        """Return them with a mask that leaves nothing out."""
        ids = torch.from_numpy(np.ascontiguousarray(inputs))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def to_config(self) -> dict[str, Any]:
        """Return the kind alone."""
        return {"kind": self.kind}


def save_random_models(folder: Path) -> None:
    """Save both models of random weights in sharded safetensors, the decoder twice.

    Parameters
    ----------
    folder : Path
        Gets ``ViT-B-float32``, ``decoder-float32``, and ``decoder-bfloat16``.
    """
    from transformers import (
        LlamaConfig,
        LlamaForSequenceClassification,
        ViTConfig,
        ViTForImageClassification,
    )

    with torch.random.fork_rng():
        torch.manual_seed(0)
        image = ViTForImageClassification(ViTConfig(**_VIT))
        image.save_pretrained(folder / f"{VIT}-float32", max_shard_size=_SHARD)
        decoder: Any = LlamaForSequenceClassification(LlamaConfig(**_DECODER))
    for dtype in (torch.float32, torch.bfloat16):
        name = f"{DECODER}-{str(dtype).removeprefix('torch.')}"
        decoder.to(dtype).save_pretrained(folder / name, max_shard_size=_SHARD)


def task_and_examples(
    model: str, folder: Path, *, layers: int, precision: str, examples: int, device: str
) -> tuple[Task, Examples]:
    """Load a model with an adapter space, and make examples for it.

    Parameters
    ----------
    model : str
        `MINILM`, `VIT`, or `DECODER`.
    folder : Path
        Where `save_random_models` saved.
    layers : int
        Adapted layers, counted from the top.
    precision : str
        ``"float32"``, ``"bfloat16"``, or ``"int8"``, which is made of float32.
    examples : int
        n.
    device : str
        Where the model goes, `fedcert.devices.resolve_device`.

    Returns
    -------
    tuple of Task and Examples
        Labels are random; what is right does not matter for the time.
    """
    saved = "float32" if precision == "int8" else precision
    place, inputs, found = str(folder / f"{model}-{saved}"), *_inputs(model, examples)
    if model == MINILM:
        place = str(load_scenario("intents", {}).base_model())
    base = load_base_model(
        place,
        dtype=saved,
        quantization="int8" if precision == "int8" else "none",
        device=resolve_device(device),
    )
    space = AdapterSpace.of(base, rank=RANK, last_layers=layers)
    return Task(base, space, inputs), found


def _inputs(model: str, count: int) -> tuple[InputSpec, Examples]:
    generator = keyed_generator("bench scale", model)
    labels = generator.integers(0, LABELS, count)
    if model == MINILM:
        source = load_scenario("intents", {})
        return source.inputs, source.support_examples(source.new_clients[0], count)
    if model == VIT:
        side = _VIT["image_size"]
        images = generator.uniform(0, 255, (count, 3, side, side)).astype(np.float32)
        return ImageInputs(3, side, side, 0.0, 255.0), Examples(images, labels)
    tokens = generator.integers(1, _DECODER["vocab_size"], (count, _TOKENS))
    return TokenIds(), Examples(tokens, labels)


if __name__ == "__main__":
    save_random_models(Path(sys.argv[1]))
