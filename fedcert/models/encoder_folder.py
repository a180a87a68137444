"""Reading an encoder's folder: how hidden states become an embedding, and the head on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedcert.errors import ModelError
from fedcert.models.dual_encoder import TextTower, is_dual, load_text_tower
from fedcert.models.encoder import EncoderClassifier
from fedcert.models.heads import ENCODER_HEADS, Head, NamesHead, TrainedHead
from fedcert.models.sentence_folder import SentenceFolder, read_sentence_folder

__all__ = [
    "DENSE_FILE",
    "build_classifier",
    "encoder_classifier",
    "stated_reading",
    "states_pooling",
]

DENSE_FILE = "task_dense.safetensors"
_ACTIVATIONS = {"Tanh": nn.Tanh, "Identity": nn.Identity, "ReLU": nn.ReLU, "GELU": nn.GELU}


def states_pooling(name: str, revision: str | None = None) -> bool:
    """Return whether a folder or hub id says how its hidden states become an embedding."""
    return is_dual(name, revision) or stated_reading(name, revision) is not None


def stated_reading(name: str, revision: str | None) -> SentenceFolder | None:
    """Return what a sentence-transformers model, or a base model made from one, states."""
    return read_sentence_folder(name, revision) or _noted(name)


def _noted(name: str) -> SentenceFolder | None:
    """Return how fedcert's own base model reads its encoder; None if this is none."""
    try:
        noted = json.loads((Path(name) / "config.json").read_text(encoding="utf-8-sig"))
        options = noted["fedcert"]
        if options["head"] not in ENCODER_HEADS or options["pooling"] == "own":
            return None
        reading = options["pooling"], bool(options["normalize"]), options.get("max_length")
    except (OSError, ValueError, KeyError, TypeError):
        return None  # loading the model says what is wrong with it, if anything
    return SentenceFolder("", *reading, _load_dense(name, options.get("dense") or ()))


def encoder_classifier(
    model: Any, options: dict[str, Any], folder: str, *, labels: int
) -> EncoderClassifier:
    """Put the pooling and the head that a folder notes on its encoder.

    Parameters
    ----------
    model : torch.nn.Module
        The encoder.
    options : dict
        What fedcert noted in the folder's configuration.
    folder : str
        Where dense layers are, if there are any.
    labels : int
        How many labels a trained head has.

    Returns
    -------
    EncoderClassifier
        A classifier whose logits come from pooling and head.

    Raises
    ------
    ModelError
        If the folder is damaged.
    """
    dense = _load_dense(folder, options.get("dense") or ())
    try:
        text_tower = load_text_tower(folder) if options.get("text_tower") else None
        return build_classifier(model, options, dense, labels=labels, text_tower=text_tower)
    except (KeyError, TypeError) as error:
        raise ModelError(
            f"{folder!r}: what fedcert noted in config.json is damaged ({error!r}); make the "
            "base model again"
        ) from error


def build_classifier(
    model: Any,
    options: dict[str, Any],
    dense: nn.Module | None,
    *,
    labels: int,
    text_tower: TextTower | None = None,
) -> EncoderClassifier:
    """Build the classifier that options describe around an encoder.

    Parameters
    ----------
    model : torch.nn.Module
        The encoder.
    options : dict
        Pooling and head, as fedcert notes them.
    dense : torch.nn.Module or None
        What stands between pooling and normalization.
    labels : int
        How many labels a trained head has.
    text_tower : TextTower, optional
        What embeds names of labels, if not the encoder.

    Returns
    -------
    EncoderClassifier
        The classifier.
    """
    head: Head
    if options["head"] == NamesHead.kind:
        head = NamesHead(float(options["scale"]))
    else:
        behind = [dense, getattr(model, "visual_projection", None)]
        weights = [p for part in behind if part for p in part.parameters() if p.dim() == 2]
        widths = [model.config.hidden_size, *(weight.shape[0] for weight in weights)]
        head = TrainedHead(widths[-1], labels, options.get("scale"))
    return EncoderClassifier(
        model,
        head,
        pooling=options["pooling"],
        normalize_embeddings=bool(options["normalize"]),
        dense=dense,
        text_tower=text_tower,
    )


def _load_dense(folder: str, activations: Sequence[str]) -> nn.Sequential | None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not activations:
        return None
    path = Path(folder) / DENSE_FILE
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
        layers = []
        for place, activation in enumerate(activations):
            weight = tensors[f"{place}.0.weight"]
            bias = f"{place}.0.bias" in tensors
            linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias)
            layers.append(nn.Sequential(linear, _ACTIVATIONS[activation]()))
        dense = nn.Sequential(*layers)
        dense.load_state_dict(tensors)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"{path}: damaged or missing ({error}); make the base model again"
        ) from error
    return dense
