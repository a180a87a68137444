"""The frozen base model, named by id, revision and digest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from fedcert.errors import ModelError
from fedcert.label_set import LabelSet
from fedcert.models.encoder import EncoderClassifier
from fedcert.models.encoder_folder import encoder_classifier
from fedcert.models.heads import ENCODER_HEADS
from fedcert.models.identity import identity_digest, weight_digest
from fedcert.models.int8 import check_quantization, quantize_linears
from fedcert.models.label_config import check_order, check_own_labels
from fedcert.models.label_names import model_for
from fedcert.models.label_scorer import LabelScorer
from fedcert.models.layout import ModelLayout, find_layout
from fedcert.models.pretrained import made_for, pretrained

__all__ = ["BaseModel", "freeze", "load_base_model"]


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
        """Return the base model for a label set, sharing its weights and its digest.

        Parameters
        ----------
        labels : LabelSet or Sequence[str]
            Names by index, for which the base model's own template is used, or a whole label
            set.
        descriptions : Mapping[str, str], optional
            Texts that stand for some labels or all, by name.

        Returns
        -------
        BaseModel
            A base model whose logits are those of the labels.

        Raises
        ------
        DataError
            If a label has no name, or the labels are not those of a trained head.
        """
        if not self.takes_labels:
            check_own_labels(self.name, self.label_names, labels, descriptions)
            return self
        revision = None if self.revision == "local" else self.revision
        return replace(
            self, model=model_for(self.model, labels, descriptions, (self.name, revision))
        )

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
