"""Making and loading base models that are encoders with a stated pooling and a head on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedcert.errors import ModelError
from fedcert.label_set import check_template
from fedcert.models.dual_encoder import TextTower, is_dual, load_text_tower, read_dual
from fedcert.models.encoder import EncoderClassifier
from fedcert.models.heads import SCALE, UNIT_SCALE, Head, NamesHead, TrainedHead
from fedcert.models.image_processor import PROCESSOR_FILE, read_image_processor
from fedcert.models.pooling import check_pooling
from fedcert.models.sentence_folder import SentenceFolder, read_sentence_folder

__all__ = [
    "ENCODER_HEADS",
    "encoder_classifier",
    "save_encoder",
    "states_pooling",
    "with_label_names",
]

ENCODER_HEADS = (NamesHead.kind, TrainedHead.kind)
_DENSE = "task_dense.safetensors"
_ACTIVATIONS = {"Tanh": nn.Tanh, "Identity": nn.Identity, "ReLU": nn.ReLU, "GELU": nn.GELU}


def with_label_names(
    name: str | Path,
    folder: Path | None = None,
    *,
    pooling: str | None = None,
    normalize: bool | None = None,
    template: str | Sequence[str] = "{label}",
    scale: float = SCALE,
    max_length: int | None = None,
    revision: str | None = None,
    dtype: str = "float32",
    quantization: str = "none",
) -> Path:
    """Save an encoder that classifies by the names of labels, without any labels yet.

    Parameters
    ----------
    name : str or Path
        Folder or hub id of a sentence-transformers model, of another encoder, or of a
        decoder that embeds texts; or of CLIP or SigLIP, whose image tower is adapted.
    folder : Path, optional
        Where the base model goes; by default into the cache, as in `with_task_head`.
    pooling : str, optional
        One of `fedcert.models.POOLINGS`; by default what a sentence-transformers folder
        states. It must be stated for other encoders.
    normalize : bool, optional
        Whether embeddings have length 1; likewise. A cosine does not depend on it.
    template : str or Sequence[str] (default: "{label}")
        The text that is embedded for a label unless a client brings descriptions; the
        embeddings of several templates are averaged.
    scale : float (default: 20)
        What cosines are multiplied with before anybody trains; CLIP and SigLIP have their
        own.
    max_length : int, optional
        Most tokens of a text; by default what the model states.
    revision, dtype, quantization
        As in `with_task_head`.

    Returns
    -------
    Path
        The folder, which `load_base_model` takes. `BaseModel.with_labels` gives it labels.

    Raises
    ------
    ModelError
        If the model cannot be loaded, states no pooling, or is no encoder.
    """
    if not scale > 0:
        raise ModelError(f"the scale of the cosines must be positive, not {scale:g}")
    templates = [template] if isinstance(template, str) else list(template)
    check_template(templates)
    return save_encoder(
        str(name),
        folder,
        {"head": NamesHead.kind, "scale": float(scale), "template": templates},
        pooling=pooling,
        normalize=normalize,
        max_length=max_length,
        revision=revision,
        dtype=dtype,
        quantization=quantization,
    )


def states_pooling(name: str, revision: str | None = None) -> bool:
    """Return whether a folder or hub id says how its hidden states become an embedding."""
    return is_dual(name, revision) or _stated(name, revision) is not None


def _stated(name: str, revision: str | None) -> SentenceFolder | None:
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


def save_encoder(
    name: str,
    folder: Path | None,
    options: dict[str, Any],
    *,
    labels: list[str] | None = None,
    pooling: str | None,
    normalize: bool | None,
    max_length: int | None,
    revision: str | None,
    dtype: str,
    quantization: str,
) -> Path:
    """Save an encoder with what fedcert is to know about its pooling and head.

    Parameters
    ----------
    name, folder, pooling, normalize, max_length, revision, dtype, quantization
        As in `with_label_names`.
    options : dict
        What is noted in ``config.json`` about the head.
    labels : list of str, optional
        Names of the classes of a trained head.

    Returns
    -------
    Path
        The folder.
    """
    from safetensors.torch import save_file

    from fedcert.atomic import replaced_folder
    from fedcert.models.base import pretrained
    from fedcert.models.identity import weight_digest
    from fedcert.models.int8 import check_quantization
    from fedcert.models.layout import find_layout
    from fedcert.models.task_head import cached_base, check_label_order, padding_tokenizer

    check_quantization(quantization)
    if is_dual(name, revision):
        return _save_dual(
            name,
            folder,
            options,
            labels,
            revision=revision,
            dtype=dtype,
            quantization=quantization,
        )
    stated = _stated(name, revision)
    options = options | _reading(name, stated, pooling, normalize, max_length)
    options |= {"quantization": quantization}
    if labels is not None and options["normalize"]:
        options["scale"] = UNIT_SCALE
    source = str(Path(name) / stated.transformer) if stated and stated.transformer else name
    if folder is None:
        known = None if stated is None or stated.dense is None else weight_digest(stated.dense)
        folder = cached_base(
            source, revision, options=options, labels=labels or [], dtype=dtype, dense=known
        )
        if (folder / "config.json").is_file():
            return folder
    changes: dict[str, Any] = {}
    if labels is not None:
        check_label_order(source, labels, revision=revision)
        changes = _named(labels)
    model, missing = pretrained(source, revision=revision, dtype=dtype, encoder=True, **changes)
    _check_whole(name, model, missing)
    tokenizer = padding_tokenizer(source, revision)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.fedcert = options
    dense = None if stated is None else stated.dense
    # Says what does not fit before anything is written.
    find_layout(_wrapped(model, options, dense, labels=len(labels or ())))
    with replaced_folder(folder) as staging:
        model.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        if dense is not None:
            save_file(dense.state_dict(), staging / _DENSE)
    return folder


def _named(labels: Sequence[str]) -> dict[str, Any]:
    """Return what a configuration says of labels."""
    indices = {label: index for index, label in enumerate(labels)}
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": indices,
    }


def _save_dual(
    name: str,
    folder: Path | None,
    options: dict[str, Any],
    labels: list[str] | None,
    *,
    revision: str | None,
    dtype: str,
    quantization: str,
) -> Path:
    """Save the image tower of a model of two towers; for names of labels the text tower too."""
    from fedcert.atomic import replaced_folder, write_json
    from fedcert.models.task_head import cached_base

    options = options | {"pooling": "own", "normalize": True, "max_length": None, "dense": []}
    options |= {"quantization": quantization, "text_tower": labels is None}
    if folder is None:
        folder = cached_base(name, revision, options=options, labels=labels or [], dtype=dtype)
        if (folder / "config.json").is_file():
            return folder
    image, text, scale = read_dual(name, revision, dtype=dtype)
    image.config.update({} if labels is None else _named(labels))
    image.config.fedcert = options | {"scale": scale if labels is None else UNIT_SCALE}
    processor = read_image_processor(name, revision)
    with replaced_folder(folder) as staging:
        image.save_pretrained(staging)
        if processor is not None:
            write_json(staging / PROCESSOR_FILE, processor)
        if labels is None:
            text.save(staging)
    return folder


def _reading(
    name: str,
    stated: SentenceFolder | None,
    pooling: str | None,
    normalize: bool | None,
    max_length: int | None,
) -> dict[str, Any]:
    """Return how an encoder is read: as the call says, and else as its folder says."""
    pooling = pooling or (stated.pooling if stated else None)
    if pooling is None:
        raise ModelError(
            f"{name!r} does not say how its hidden states become an embedding: it has no "
            "modules.json; name the pooling that it was trained with, such as pooling='mean'"
        )
    check_pooling(pooling)
    if pooling == "own":
        raise ModelError(
            f"{name!r} is read by its hidden states; the pooling 'own' is that of image towers"
        )
    if normalize is None:
        normalize = stated.normalize if stated else False
    dense = [] if stated is None or stated.dense is None else list(stated.dense)
    return {
        "pooling": pooling,
        "normalize": normalize,
        "max_length": max_length or (stated.max_length if stated else None),
        "dense": [type(part[1]).__name__ for part in dense],  # type: ignore[index]
    }


def _check_whole(name: str, model: Any, missing: Sequence[str]) -> None:
    """Refuse what is no text encoder, or has no weights."""
    if not hasattr(model, "main_input_name") or model.main_input_name != "input_ids":
        raise ModelError(
            f"{name!r} is no text encoder ({type(model).__name__}); use a model that embeds "
            "texts"
        )
    if missing:
        raise ModelError(
            f"{name!r} has no weights for {', '.join(missing[:3])}: it was not saved as an "
            "encoder"
        )


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
        return _wrapped(model, options, dense, labels=labels, text_tower=text_tower)
    except (KeyError, TypeError) as error:
        raise ModelError(
            f"{folder!r}: what fedcert noted in config.json is damaged ({error!r}); make the "
            "base model again"
        ) from error


def _wrapped(
    model: Any,
    options: dict[str, Any],
    dense: nn.Module | None,
    *,
    labels: int,
    text_tower: TextTower | None = None,
) -> EncoderClassifier:
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
    path = Path(folder) / _DENSE
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
