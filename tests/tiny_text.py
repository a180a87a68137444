"""Tiny text models with a tokenizer of a few words, made on the fly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedcert.data import Examples
from fedcert.randomness import keyed_generator

GOOD = [f"good{index}" for index in range(12)]
BAD = [f"bad{index}" for index in range(12)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def tiny_tokenizer(*, pad: bool = True, words: list[str] | None = None) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {w: i for i, w in enumerate([*SPECIAL, *(words or GOOD + BAD)])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    special: dict[str, Any] = {"unk_token": "[UNK]", "eos_token": "[SEP]"}
    if pad:
        special["pad_token"] = "[PAD]"
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=16, **special)


def tiny_texts(count: int, *, seed: int = 0) -> Examples:
    """Draw texts of 1 to 6 words; a label shows in every word."""
    generator = keyed_generator("tiny texts", seed)
    labels = generator.integers(0, 2, count)
    texts = np.empty(count, dtype=object)
    for row, label in enumerate(labels):
        words = generator.choice(GOOD if label else BAD, generator.integers(1, 7))
        texts[row] = " ".join(words)
    return Examples(texts, labels)


def save_tiny_backbone(folder: Path, family: str, *, pad: bool = True) -> Path:
    """Save an encoder or decoder without a head, and its tokenizer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _BUILD[family]()
    model.save_pretrained(folder)
    tiny_tokenizer(pad=pad).save_pretrained(folder)
    return folder


_SIZE: dict[str, Any] = {
    "vocab_size": 28,
    "max_position_embeddings": 18,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}
_LAYERS: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def _bert() -> Any:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(**_SIZE, **_LAYERS))


def _roberta() -> Any:
    from transformers import RobertaConfig, RobertaModel

    return RobertaModel(RobertaConfig(**_SIZE, **_LAYERS))


def _distilbert() -> Any:
    from transformers import DistilBertConfig, DistilBertModel

    return DistilBertModel(
        DistilBertConfig(**_SIZE, dim=16, n_layers=2, n_heads=2, hidden_dim=32)
    )


def _llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    options = _SIZE | {"pad_token_id": None}
    return LlamaForCausalLM(LlamaConfig(**options, **_LAYERS, num_key_value_heads=1))


_BUILD = {"bert": _bert, "roberta": _roberta, "distilbert": _distilbert, "llama": _llama}
