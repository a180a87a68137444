"""Making a base model for a task: any pretrained model, a zero head, and its inputs' reader."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from fedcert.errors import ModelError
from fedcert.models.encoder_base import save_encoder
from fedcert.models.encoder_folder import states_pooling
from fedcert.models.heads import TrainedHead
from fedcert.models.image_processor import read_image_processor
from fedcert.models.int8 import check_quantization
from fedcert.models.label_config import check_label_order, label_entries
from fedcert.models.layout import find_layout
from fedcert.models.pretrained import pretrained
from fedcert.models.saving import cached_base, padding_tokenizer, save_base

__all__ = ["with_task_head"]


def with_task_head(
    name: str | Path,
    labels: Sequence[str],
    folder: Path | None = None,
    *,
    pooling: str | None = None,
    normalize: bool | None = None,
    max_length: int | None = None,
    revision: str | None = None,
    dtype: str = "float32",
    quantization: str = "none",
    depth: int = 0,
) -> Path:
    """Save a pretrained model with a zero head for a task.

    Its tokenizer or image processor is saved beside it. An encoder that states a pooling, as
    a sentence-transformers folder does, is read through it, and the head stands on its
    embeddings. Any other model is read as `transformers` classifies with its family, unless a
    pooling is named here.

    Parameters
    ----------
    name : str or Path
        Folder or hub id of an encoder, a decoder, or an image model, with or without a
        head. Its own head, if any, is left out.
    labels : Sequence[str]
        Names of the task's classes.
    folder : Path, optional
        Where the base model goes. By default into the cache, under a name that follows
        from the content of the source, so that it is made once.
    pooling : str, optional
        One of `fedcert.models.POOLINGS`; by default what the model states.
    normalize : bool, optional
        Whether embeddings have length 1; likewise.
    max_length : int, optional
        Most tokens of a text; likewise.
    revision : str, optional
        Hub revision.
    dtype : str (default: "float32")
        ``"float32"`` or ``"bfloat16"``.
    quantization : str (default: "none")
        How `load_base_model` is to load it: ``"none"`` or ``"int8"``.
    depth : int (default: 0)
        How many of the layers to keep, from the first on; 0 keeps all. Head and pooling then
        read the last layer that is kept: an early exit, as a base model of its own.

    Returns
    -------
    Path
        The folder, which `load_base_model` takes.

    Raises
    ------
    ModelError
        If the model cannot be loaded or has an unknown layout, is one for texts and has no
        tokenizer, or has the same labels in another order.
    """
    name = str(name)
    _check_names(labels)
    reading: dict[str, Any] = {
        "pooling": pooling,
        "normalize": normalize,
        "max_length": max_length,
    }
    asked = any(value is not None for value in reading.values())
    if asked or states_pooling(name, revision):
        return save_encoder(
            name,
            folder,
            {"head": TrainedHead.kind},
            labels=list(labels),
            revision=revision,
            dtype=dtype,
            quantization=quantization,
            depth=depth,
            **reading,
        )
    check_quantization(quantization)
    check_label_order(name, labels, revision=revision)
    if folder is None:
        folder = cached_base(
            name, revision, labels=labels, dtype=dtype, mode=quantization, depth=depth
        )
        if (folder / "config.json").is_file():
            return folder
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of what the backbone lacks and the task needs, a pooler say
        model, missing = pretrained(
            name,
            revision=revision,
            dtype=dtype,
            causal=False,
            depth=depth,
            **label_entries(labels),
        )
    _zero_head(model, missing)
    texts = model.main_input_name == "input_ids"
    tokenizer = padding_tokenizer(name, revision) if texts else None
    processor = None if texts else read_image_processor(name, revision)
    model.config.fedcert = {"quantization": quantization}
    save_base(model, tokenizer, folder, processor=processor)
    return folder


def _check_names(labels: Sequence[str]) -> None:
    """Raise `ModelError` unless there are two labels or more, each with a name of its own."""
    if len(labels) < 2:
        raise ModelError(f"a task needs at least two labels, not {len(labels)}")
    for place, label in enumerate(labels, start=1):
        if not isinstance(label, str) or not label.strip():
            raise ModelError(f"label {place} has no name; give every label a name")
        if label in labels[: place - 1]:
            raise ModelError(f"the label {label!r} stands in the list twice; name each once")


def _zero_head(model: Any, missing: Sequence[str]) -> None:
    """Zero what gives the logits; let new dense layers in front of it hand on their input."""
    layout = find_layout(model)
    backbone = layout.layers.split(".")[0]
    head = model.get_submodule(layout.head)
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    for weight in missing:
        owner = weight.rpartition(".")[0]
        module = model.get_submodule(owner)
        if owner.split(".")[0] == backbone or module is head:
            continue
        if isinstance(module, nn.Linear) and module.in_features == module.out_features:
            nn.init.eye_(module.weight)
            nn.init.zeros_(cast(torch.Tensor, module.bias))
