"""Making a base model for a task: any pretrained model, a zero head, and its inputs' reader."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from fedcert.atomic import replaced_folder, write_json
from fedcert.cache import cache_folder
from fedcert.canonical import digest_json
from fedcert.errors import ModelError
from fedcert.models.base import check_order, pretrained
from fedcert.models.encoder_base import save_encoder, states_pooling
from fedcert.models.families import check_family
from fedcert.models.heads import TrainedHead
from fedcert.models.image_processor import PROCESSOR_FILE, read_image_processor
from fedcert.models.int8 import check_quantization
from fedcert.models.layout import find_layout
from fedcert.models.tokenizer import read_tokenizer

__all__ = [
    "cached_base",
    "check_label_order",
    "padding_tokenizer",
    "save_base",
    "with_task_head",
]

# Part of the cache's key: change it when the same source gives another base model.
_VERSION = 2


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
            **reading,
        )
    check_quantization(quantization)
    check_label_order(name, labels, revision=revision)
    if folder is None:
        folder = cached_base(name, revision, labels=labels, dtype=dtype, mode=quantization)
        if (folder / "config.json").is_file():
            return folder
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of what the backbone lacks and the task needs, a pooler say
        model, missing = pretrained(
            name,
            revision=revision,
            dtype=dtype,
            causal=False,
            num_labels=len(labels),
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
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


def check_label_order(name: str, labels: Sequence[str], *, revision: str | None) -> None:
    """Raise `ModelError` if a model's configuration has the same labels in another order.

    Everything that was made with such a model, a pool say, has them in its order: the labels
    would be swapped without a word.

    Parameters
    ----------
    name : str
        A folder or hub id.
    labels : sequence of str
        The task's labels, by index.
    revision : str or None
        Hub revision.
    """
    from transformers import AutoConfig

    revision = check_family(name, revision)
    try:
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
        own = [config.id2label[index] for index in range(len(config.id2label))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # loading the model says what is wrong with it, if anything
    check_order(name, own, labels)


def save_base(
    model: Any, tokenizer: Any, folder: Path, *, processor: dict[str, Any] | None = None
) -> None:
    """Save a base model with its tokenizer or image processor, in full or not at all.

    Parameters
    ----------
    model : Any
        A model of `transformers`.
    tokenizer : Any
        Its tokenizer, or None.
    folder : Path
        Replaced in one step.
    processor : dict, optional
        What `fedcert.models.image_processor.read_image_processor` returned.
    """
    if tokenizer is not None:
        model.config.pad_token_id = tokenizer.pad_token_id
    with replaced_folder(folder) as staging:
        model.save_pretrained(staging)
        if tokenizer is not None:
            tokenizer.save_pretrained(staging)
        if processor is not None:
            write_json(staging / PROCESSOR_FILE, processor)


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


def padding_tokenizer(name: str, revision: str | None) -> Any:
    """Load the source's tokenizer; a decoder without a padding token pads with its end."""
    tokenizer = read_tokenizer(name, revision)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ModelError(
                f"the tokenizer of {name!r} has neither a padding nor an end token; "
                "set pad_token in tokenizer_config.json"
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def cached_base(name: str, revision: str | None, **made_from: Any) -> Path:
    """Return where the cache keeps a base model, given what it is made from (JSON values).

    Parameters
    ----------
    name : str
        A folder or hub id.
    revision : str or None
        Hub revision.
    **made_from
        Everything else that the base model depends on.

    Returns
    -------
    Path
        A folder, which need not be there yet.
    """
    content = {
        "source": _content(name, revision),
        "torch": torch.__version__,
        "version": _VERSION,
        **{key: list(v) if isinstance(v, tuple) else v for key, v in made_from.items()},
    }
    return cache_folder() / "base-models" / f"{Path(name).name}-{digest_json(content)[:16]}"


def _content(name: str, revision: str | None) -> dict[str, str]:
    """Name what a folder holds by the digests of its files, and a hub model by its commit."""
    if Path(name).is_dir():
        files = sorted(path for path in Path(name).iterdir() if path.is_file())
        digests = {}
        for path in files:
            with path.open("rb") as file:
                digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
        return digests
    return {name: str(check_family(name, revision))}
