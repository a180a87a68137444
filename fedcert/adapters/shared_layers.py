"""Adapters that differ in their heads alone: the layers run once for all of them."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from fedcert.adapters.forward import AdaptedModel
from fedcert.adapters.prepared import PreparedInputs
from fedcert.models.base import BaseModel
from fedcert.models.encoder import TASK_HEAD
from fedcert.models.heads import TrainedHead

__all__ = ["SharedLayers", "embeddings", "head_logits", "head_size"]

# Groups of prepared inputs whose embeddings are kept.
_KEPT = 128


def head_size(base: BaseModel) -> int:
    """Return how many coordinates of an adapter are weights of a head on embeddings.

    They stand at its end. 0 if the model has another head, which may read more than that.
    """
    head = base.model._modules.get(TASK_HEAD)
    if not isinstance(head, TrainedHead):
        return 0
    return sum(parameter.numel() for parameter in head.parameters())


def embeddings(
    model: AdaptedModel, prepared: PreparedInputs, vector: torch.Tensor
) -> torch.Tensor:
    """Return what the head reads of each example under an adapter, shape ``(n, width)``.

    Parameters
    ----------
    model : AdaptedModel
        A model with a head on embeddings.
    prepared : PreparedInputs
        From its `prepare`, n examples.
    vector : torch.Tensor
        The adapter, shape ``(d,)``; its head plays no part.

    Returns
    -------
    torch.Tensor
        Without gradients.
    """
    read: list[torch.Tensor] = []

    def capture(_head: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        read.append(args[0])

    handle = model.base.model.get_submodule(TASK_HEAD).register_forward_pre_hook(capture)
    try:
        with torch.no_grad():
            model.logits(prepared, vector[None])
    finally:
        handle.remove()
    return read[0]


def head_logits(
    model: AdaptedModel, embedded: torch.Tensor, vectors: torch.Tensor
) -> torch.Tensor:
    """Return the logits of adapters with the same layers; gradients flow to their heads.

    Parameters
    ----------
    model : AdaptedModel
        A model with a head on embeddings.
    embedded : torch.Tensor
        From `embeddings`, ``(n, width)``.
    vectors : torch.Tensor
        Adapters of shape ``(C, d)``.

    Returns
    -------
    torch.Tensor
        Shape ``(C, n, K)``.
    """
    head = model.base.model.get_submodule(TASK_HEAD)
    assert isinstance(head, TrainedHead)  # `head_size` says so
    parts = model.space.split(vectors)
    return head.shared(
        embedded, {name: parts[f"{TASK_HEAD}.{name}"] for name, _ in head.named_parameters()}
    )


class SharedLayers:
    """Scores blocks of adapters by their heads, where nothing else differs.

    Parameters
    ----------
    model : AdaptedModel
        What the adapters run on.
    """

    def __init__(self, model: AdaptedModel) -> None:
        self._model, self._head = model, head_size(model.base)
        # By identity of what was prepared, which is kept along so that it stays its own.
        self._known: OrderedDict[int, tuple[PreparedInputs, bytes, torch.Tensor]] = (
            OrderedDict()
        )

    def among(self, block: torch.Tensor) -> bool:
        """Whether all adapters of a block have the same layers, and running these once pays."""
        if not self._head:
            return False
        layers = block[:, : -self._head]
        return bool((layers == layers[:1]).all()) and (len(block) > 1 or not layers.any())

    def logits(self, prepared: PreparedInputs, block: torch.Tensor) -> torch.Tensor:
        """Return the logits of a block of such adapters, ``(C, n, K)``."""
        layers = block[0, : -self._head].cpu().numpy().tobytes()
        known = self._known.get(id(prepared))
        if known is None or known[1] != layers:
            made = embeddings(self._model, prepared, block[0])
            known = self._known[id(prepared)] = prepared, layers, made
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return head_logits(self._model, known[2], block)
