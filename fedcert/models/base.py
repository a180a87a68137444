"""The frozen base model, named by id, revision and digest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fedcert.errors import ModelError
from fedcert.models.encoder import EncoderClassifier
from fedcert.models.encoder_base import ENCODER_HEADS, encoder_classifier
from fedcert.models.families import check_family
from fedcert.models.identity import identity_digest, weight_digest
from fedcert.models.int8 import check_quantization, quantize_linears
from fedcert.models.label_scorer import LabelScorer
from fedcert.models.layout import ModelLayout, find_layout

if TYPE_CHECKING:
    from fedcert.label_set import LabelSet

__all__ = [
    "BaseModel",
    "check_order",
    "freeze",
    "load_base_model",
    "pretrained",
    "weight_digest",
]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class BaseModel:
    """A frozen classification model, shared by all adapters.

    Attributes
    ----------
    model : torch.nn.Module
        In evaluation mode, with all parameters frozen.
    name : str
        Hub id or local path that it was loaded from.
    revision : str
        Hub revision, or ``"local"``.
    digest : str
        SHA-256 over all weights and buffers, and over what the configuration says about the
        forward pass: its identity.
    weights : str
        The digest of weights and buffers alone, which was the identity in older bundles.
    layout : ModelLayout
        Where layers and head are.
    """

    model: nn.Module
    name: str
    revision: str
    digest: str
    weights: str
    layout: ModelLayout

    @property
    def num_labels(self) -> int:
        """How many classes the head tells apart; 0 if it takes labels and has none yet."""
        if isinstance(self.model, EncoderClassifier):
            return self.model.task_head.num_labels
        if isinstance(self.model, LabelScorer):
            return self.model.num_labels
        return int(self.model.config.num_labels)  # type: ignore[union-attr, arg-type]

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes by index, as far as the model has any."""
        labels = getattr(self.model, "labels", None)
        if labels is not None:
            return tuple(labels.names)
        names: Any = self.model.config.id2label  # type: ignore[union-attr]
        return tuple(str(names[index]) for index in range(self.num_labels))

    @property
    def takes_labels(self) -> bool:
        """Whether each client may bring labels of its own, by their names."""
        if isinstance(self.model, EncoderClassifier):
            return self.model.task_head.kind == "names"
        return isinstance(self.model, LabelScorer) and self.model.takes_labels

    @property
    def device(self) -> torch.device:
        """Where the weights are, and with them all that is computed."""
        return next(self.model.parameters()).device

    def to(self, device: torch.device) -> BaseModel:
        """Move the weights to a device, in place; the digest stays as it is."""
        self.model.to(device)
        return self

    def with_labels(
        self,
        labels: LabelSet | Sequence[str],
        *,
        descriptions: Mapping[str, str] | None = None,
    ) -> BaseModel:
        """Return the model for a label set; see `fedcert.models.label_names.with_labels`."""
        from fedcert.models.label_names import with_labels

        return with_labels(self, labels, descriptions=descriptions)

    def goes_by(self, digest: str) -> bool:
        """Return whether a digest is this model's, in today's form or the older one."""
        return digest in {self.digest, self.weights}

    def note_on(self, digest: str) -> str:
        """Say what a digest that this model goes by leaves open; empty if nothing."""
        if digest == self.digest:
            return ""
        return "the bundle's base digest does not cover the configuration of the base model"


def freeze(model: nn.Module, *, name: str, revision: str = "local") -> BaseModel:
    """Freeze a model in evaluation mode and give it its identity.

    Parameters
    ----------
    model : nn.Module
        The model, which is changed in place.
    name : str
        Folder or hub id.
    revision : str (default: "local")
        Hub revision, or ``"local"``.

    Returns
    -------
    BaseModel
        The frozen model with the digest of its weights and configuration.
    """
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    weights = weight_digest(model)
    digest = identity_digest(model, weights)
    return BaseModel(model, name, revision, digest, weights, find_layout(model))


def load_base_model(
    name: str,
    *,
    num_labels: int | None = None,
    labels: Sequence[str] = (),
    revision: str | None = None,
    digest: str | None = None,
    dtype: str = "float32",
    quantization: str | None = None,
    device: torch.device | None = None,
) -> BaseModel:
    """Load a sequence or image classification model from a folder or the hub.

    A folder that `fedcert.models.with_label_phrases` made gives a `LabelScorer`.

    Parameters
    ----------
    name : str
        A local folder or a hub id.
    num_labels : int, optional
        How many classes the task has; the saved head must agree. A model that classifies by
        the names of labels (`fedcert.models.with_label_names`) has none of its own: give it
        some with `BaseModel.with_labels`.
    labels : Sequence[str], optional
        Names of the task's classes by index; a model that has the same ones in another order
        is refused.
    revision : str, optional
        Hub revision (a commit, for reproducibility).
    digest : str, optional
        The digest that the model must have, or its weights: bundles from before know a model
        by these alone.
    dtype : str (default: "float32")
        ``"float32"`` or ``"bfloat16"``, whatever the weights were saved in. It is part of
        the digest.
    quantization : str, optional
        ``"none"``, or ``"int8"`` for weights in eight bits (`fedcert.models.int8`); by
        default what the folder was made for. It is part of the digest: adapters, bundle and
        certificate then speak of the quantized model.
    device : torch.device, optional
        Where the weights go once they are known by their digest
        (`fedcert.devices.resolve_device`); by default they stay on the CPU.

    Returns
    -------
    BaseModel
        The frozen model with its identity.

    Raises
    ------
    ModelError
        If the model cannot be loaded, has no head, another number of labels, or other
        weights.
    """
    model, missing = pretrained(name, revision=revision, dtype=dtype)
    if missing:
        raise ModelError(
            f"the base model {name!r} has no weights for {', '.join(missing[:3])}: it was not "
            "saved for classification; make a base model from it with "
            "fedcert.models.with_task_head"
        )
    options = made_for(model.config)
    if "phrases" in options:
        model = LabelScorer(model, options["phrases"], average=options["average"])
    elif options.get("head") in ENCODER_HEADS:
        count = int(model.config.num_labels)
        model = encoder_classifier(model, options, name, labels=count)
    quantization = quantization or options.get("quantization", "none")
    check_quantization(quantization)
    if quantization == "int8":
        quantize_linears(model, find_layout(model).layers)
    base = freeze(model, name=name, revision=revision or "local")
    if num_labels not in {None, base.num_labels} and not base.takes_labels:
        raise ModelError(
            f"the base model {name!r} has {base.num_labels} labels, but the task has "
            f"{num_labels}; save it with num_labels={num_labels} first"
        )
    if not base.takes_labels:
        check_order(name, base.label_names, labels)
    if digest is not None and not base.goes_by(digest):
        raise ModelError(
            f"the base model {name!r} has other weights or another configuration than the one "
            f"this was made for (digest {base.digest[:12]} instead of {digest[:12]}); use the "
            "folder, or the revision, that the bundle was made with"
        )
    return base if device is None else base.to(device)


def check_order(name: str, own: Sequence[str], labels: Sequence[str]) -> None:
    """Raise `ModelError` if a model's own labels are those of a task in another order.

    Whoever goes by the names in the model's configuration, as stock pipelines do, would read
    the labels swapped.

    Parameters
    ----------
    name : str
        The model, for the message.
    own, labels : Sequence[str]
        The model's labels and the task's, by index.
    """
    if list(own) != list(labels) and sorted(map(str, own)) == sorted(labels):
        raise ModelError(
            f"the base model {name!r} has the labels {', '.join(own)}, in this order, and the "
            f"task has {', '.join(labels)}: write the task's labels in the order of the model"
        )


def made_for(config: Any) -> dict[str, Any]:
    """Return what fedcert noted in a model's configuration when it made the base model."""
    return dict(getattr(config, "fedcert", None) or {})


def pretrained(
    name: str,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    causal: bool | None = None,
    encoder: bool | None = None,
    **changes: Any,
) -> tuple[Any, list[str]]:
    """Load a classification model and name the weights that were not saved with it.

    Parameters
    ----------
    name, revision, dtype
        As in `load_base_model`.
    causal : bool, optional
        Whether to load a causal language model; by default as fedcert noted it.
    encoder : bool, optional
        Whether to load an encoder without any head; by default as fedcert noted it.
    **changes
        Entries of the model's configuration to set otherwise.

    Returns
    -------
    tuple
        The model, and the names of weights that it has and the folder does not.

    Raises
    ------
    ModelError
        If it cannot be loaded.
    """
    from transformers import AutoConfig

    if dtype not in _DTYPES:
        raise ModelError(f"there is no dtype {dtype!r} here; choose {' or '.join(_DTYPES)}")
    revision = check_family(name, revision)
    try:
        # Neither code from a model's folder nor pickled weights, which are code as well.
        config = AutoConfig.from_pretrained(
            name, revision=revision, trust_remote_code=False, **changes
        )
        _check_padding(name, config)
        causal = "phrases" in made_for(config) if causal is None else causal
        if encoder is None:
            encoder = made_for(config).get("head") in ENCODER_HEADS
        chosen = _auto_class(config, causal=causal, encoder=encoder)
        # A pooler that nothing reads would be drawn at random where none was saved.
        extra = {"add_pooling_layer": False} if encoder and _has_pooler(config) else {}
        model, info = chosen.from_pretrained(
            name,
            revision=revision,
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=_DTYPES[dtype],
            output_loading_info=True,
            ignore_mismatched_sizes=bool(changes),
            **extra,
        )
    except ModelError:
        raise
    except Exception as error:  # a configuration that makes no sense raises anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if not Path(name).exists():
            reason = f"there is no such folder here, and the hub does not give it ({reason})"
        kind = "folder" if Path(name).exists() else "folder or hub id"
        raise ModelError(
            f"cannot load a base model from the {kind} {name!r}: {reason}"
        ) from error
    return model, sorted(info["missing_keys"])


def _check_padding(name: str, config: Any) -> None:
    """Raise `ModelError` for a padding token that has no embedding."""
    pad, words = getattr(config, "pad_token_id", None), getattr(config, "vocab_size", None)
    if isinstance(pad, int) and isinstance(words, int) and not -words <= pad < words:
        raise ModelError(
            f"the base model {name!r} pads with token {pad}, but has embeddings for the tokens "
            f"0 to {words - 1} only; set pad_token_id in config.json to one of these, or call "
            "resize_token_embeddings and save the model again"
        )


def _has_pooler(config: object) -> bool:
    """Return whether an architecture can be built without its pooler."""
    from transformers import MODEL_MAPPING

    architecture = MODEL_MAPPING.get(type(config), None)
    return (
        "add_pooling_layer" in signature(getattr(architecture, "__init__", object)).parameters
    )


def _auto_class(config: object, *, causal: bool, encoder: bool) -> Any:
    """Choose the auto class from the architecture that was saved, or can be built."""
    from transformers import (
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForImageClassification,
        AutoModelForSequenceClassification,
        CLIPVisionModelWithProjection,
    )

    if encoder:
        # Under the name of the tower alone there is one without the projection.
        clip = getattr(config, "model_type", "") == "clip_vision_model"
        return CLIPVisionModelWithProjection if clip else AutoModel
    if causal:
        return AutoModelForCausalLM
    architectures = getattr(config, "architectures", None) or [""]
    images = type(config) in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    texts = type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    if "ImageClassification" in architectures[0] or (images and not texts):
        return AutoModelForImageClassification
    return AutoModelForSequenceClassification
