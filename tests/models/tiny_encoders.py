"""Tiny random encoders of several families, as sentence encoders are saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tiny_text import BAD, GOOD, tiny_tokenizer
from transformers import AutoModel, AutoTokenizer

NAMES = ("bad0", "good3", "bad1 bad2")
WORDS = [*GOOD, *BAD, "about"]
FAMILIES = ("bert", "roberta", "mpnet", "distilbert", "xlm-roberta", "llama")

_SIZE: dict[str, Any] = {
    "vocab_size": 29,
    "max_position_embeddings": 18,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}
_LAYERS: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def _build(family: str) -> Any:
    import transformers as t

    if family == "distilbert":
        small = {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32}
        return t.DistilBertModel(t.DistilBertConfig(**_SIZE, **small))
    if family == "llama":
        return t.LlamaModel(t.LlamaConfig(**_SIZE, **_LAYERS, num_key_value_heads=1))
    configs = {
        "bert": (t.BertConfig, t.BertModel),
        "roberta": (t.RobertaConfig, t.RobertaModel),
        "mpnet": (t.MPNetConfig, t.MPNetModel),
        "xlm-roberta": (t.XLMRobertaConfig, t.XLMRobertaModel),
    }
    config, model = configs[family]
    return model(config(**_SIZE, **_LAYERS))


def save_encoder(folder: Path, family: str) -> Path:
    """Save an encoder and its tokenizer, and nothing that says how it is pooled."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _build(family)
    model.save_pretrained(folder)
    tiny_tokenizer(words=WORDS).save_pretrained(folder)
    return folder


def save_sentence_encoder(
    folder: Path,
    family: str = "bert",
    *,
    pooling: dict[str, Any] | None = None,
    dense: int = 0,
    normalize: bool = True,
    **files: Any,
) -> Path:
    """Save an encoder as sentence-transformers does; `files` are further JSON files by stem."""
    save_encoder(folder, family)
    kinds = ["Transformer", "Pooling", *["Dense"] * bool(dense), *["Normalize"] * normalize]
    modules = [
        {
            "idx": place,
            "name": str(place),
            "path": f"{place}_{kind}" if place else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for place, kind in enumerate(kinds)
    ]
    _write(folder / "modules.json", modules)
    mean = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}
    _write(folder / "1_Pooling" / "config.json", mean if pooling is None else pooling)
    if dense:
        _save_dense(folder / "2_Dense", dense)
    limits = {"max_seq_length": 12, "do_lower_case": False}
    for stem, content in {"sentence_bert_config": limits, **files}.items():
        _write(folder / f"{stem}.json", content)
    return folder


def _save_dense(folder: Path, width: int) -> None:
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(5)
    activation = "torch.nn.modules.activation.Tanh"
    config = {"in_features": 16, "out_features": width, "bias": True}
    _write(folder / "config.json", {**config, "activation_function": activation})
    weight = torch.randn(width, 16, generator=generator)
    bias = torch.randn(width, generator=generator)
    save_file({"linear.weight": weight, "linear.bias": bias}, folder / "model.safetensors")


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def embed_by_hand(folder: Path, texts: list[str], pooling: str) -> torch.Tensor:
    """Embed texts one at a time, without padding, with stock transformers."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    pooled = []
    for text in texts:
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        picked = {
            "mean": hidden.mean(dim=0),
            "max": hidden.max(dim=0).values,
            "cls": hidden[0],
            "last": hidden[-1],
        }
        pooled.append(picked[pooling])
    return torch.stack(pooled)
