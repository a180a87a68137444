"""What a base model is: its weights, and how its configuration computes with them.

The same weights with another number of attention heads, activation, or epsilon are another
predictor, and a certificate speaks of one. The digest of a base model therefore covers the
entries of its configuration that the forward pass may read. Names, versions, precision as it
was saved, dropout and the like are left out, since they change nothing and differ between
copies of one model; an entry that nobody knows counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fedcert.canonical import digest_json, digest_tensors

__all__ = ["forward_configuration", "identity_digest", "weight_digest"]

_FORMAT = "fedcert.base-model/2"

# Names, versions, and what was noted along the way. The weights' digest has the number of
# labels, the precision, tied weights, and what fedcert's own entry asks for.
_SAID = {
    "_commit_hash",
    "_name_or_path",
    "architectures",
    "auto_map",
    "dtype",
    "fedcert",
    "finetuning_task",
    "id2label",
    "label2id",
    "model_type",  # it is named beside the entries
    "num_labels",
    "problem_type",
    "task_specific_params",
    "tie_word_embeddings",
    "torch_dtype",
    "transformers_version",
}
# What is returned beside the logits, and what only training reads.
_NOT_FORWARD = {
    "attention_dropout",
    "attention_probs_dropout_prob",
    "attn_pdrop",
    "classifier_dropout",
    "classifier_dropout_prob",
    "dropout",
    "embd_pdrop",
    "gradient_checkpointing",
    "hidden_dropout_prob",
    "initializer_factor",
    "initializer_range",
    "output_attentions",
    "output_hidden_states",
    "resid_pdrop",
    "return_dict",
    "use_cache",
}


def weight_digest(model: nn.Module) -> str:
    """Digest a model's weights and buffers (name, dtype, shape, bytes).

    bfloat16 has no NumPy type, so its bytes are hashed as int16 under a marked name.
    """
    tensors = {}
    for name, tensor in model.state_dict().items():
        data = tensor.detach().cpu().contiguous()
        if data.dtype is torch.bfloat16:
            tensors[f"{name}:bfloat16"] = data.view(torch.int16).numpy()
        else:
            tensors[name] = data.numpy()
    return digest_tensors(tensors)


def identity_digest(model: nn.Module, weights: str) -> str:
    """Digest a model's weights, given by their own digest, and its configuration."""
    configuration = forward_configuration(model.config)
    return digest_json({"format": _FORMAT, "weights": weights, "configuration": configuration})


def forward_configuration(config: Any) -> dict[str, Any]:
    """Return what the forward pass may read of a configuration: a JSON object.

    What a family's default says is left out, so that a copy which spells defaults out, or
    was saved by a release of `transformers` that knows more entries, is the same model.
    """
    stated = _relevant(config.to_dict())
    try:
        defaults = _relevant(type(config)().to_dict())
    except Exception:  # a family without defaults says everything itself
        defaults = {}
    named = {"model_type": getattr(config, "model_type", "")}
    return named | {
        key: value
        for key, value in stated.items()
        if value is not None and value != defaults.get(key)
    } | {
        # Unset where the family's default is something.
        key: None
        for key, value in defaults.items()
        if value is not None and stated.get(key) is None
    }  # fmt: skip


def _relevant(entries: Mapping[Any, Any]) -> dict[str, Any]:
    """Drop what is not read, at every depth, and give values their JSON form."""
    kept = {}
    for key, value in entries.items():
        if str(key) in _SAID | _NOT_FORWARD:
            continue
        kept[str(key)] = _relevant(value) if isinstance(value, Mapping) else _plain(value)
    return kept


def _plain(value: Any) -> Any:
    """Return a value's JSON form; numbers that JSON has no word for are named."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and abs(value) >= 2**53:
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return json.loads(json.dumps(value, default=str, sort_keys=True))
