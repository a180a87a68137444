"""Heads on an encoder's embedding: from names of the labels, or trained weights per label.

A head gives logits for embeddings, and for many adapters at once: what an adapter holds of it
are the tensors that `Head.named_parameters` names. Zeros are where all adapters start.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn
from torch.nn.functional import normalize

from fedcert.errors import ModelError

__all__ = ["ENCODER_HEADS", "SCALE", "UNIT_SCALE", "Head", "NamesHead", "TrainedHead"]

SCALE = 20.0
"""What a cosine is multiplied with, as sentence encoders are trained (1 / .05)."""

UNIT_SCALE = 8.0
"""What a trained head multiplies embeddings of unit length with: their numbers are so small
that a penalty on the weights, such as the settings' default, would leave hardly any logits.
A checkout compares scales on upstream clients' texts alone, in
``simulations/benchmarks/unit_scale.py``."""

# Beyond e^10 a logit says nothing more; an infinite one would not be a number times zero.
_LARGEST = 10.0


class Head(nn.Module, ABC):
    """Where logits come from, given embeddings of shape ``(n, width)``."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def num_labels(self) -> int:
        """K, how many labels it tells apart; 0 as long as it has none."""

    @abstractmethod
    def stacked(
        self, embeddings: torch.Tensor, tensors: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Return the logits of C adapters, ``(C * n, K)``, adapter by adapter.

        Parameters
        ----------
        embeddings : torch.Tensor
            Shape ``(C * n, width)``, adapter by adapter.
        tensors : Mapping[str, torch.Tensor]
            The adapters' tensors by the names of this head's parameters, ``(C, ...)``.
        """

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return the logits with the head's own parameters, ``(n, K)``."""
        own = {name: tensor[None] for name, tensor in self.named_parameters()}
        return self.stacked(embeddings, own)


class NamesHead(Head):
    """Logits are scaled cosines of an input's embedding and the label names' embeddings.

    An adapter holds the scale's logarithm, relative to the scale that the base model starts
    with, and nothing that depends on the labels. So clients with different labels share one
    adapter space. An adapter that was trained for certain labels may also move their
    embeddings; the moved ones are of any length, and their inner product with the input's
    unit embedding is what is scaled.

    Parameters
    ----------
    scale : float
        What cosines are multiplied with where an adapter says nothing else.
    label_embeddings : torch.Tensor, optional
        Unit vectors, ``(K, width)``. They are no weights of the base model, and its digest
        does not cover them: each label set has its own.
    """

    kind = "names"

    def __init__(self, scale: float, label_embeddings: torch.Tensor | None = None) -> None:
        super().__init__()
        self.scale = scale
        self.log_scale = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.register_buffer("label_embeddings", label_embeddings, persistent=False)
        # Part of few adapters only, see `AdapterSpace.holding`.
        self.register_parameter("label_moves", None)

    @property
    def num_labels(self) -> int:
        """K, how many labels it tells apart; 0 as long as it has none."""
        labels = self._buffers["label_embeddings"]
        return 0 if labels is None else len(labels)

    def take_moves(self, moves: bool) -> None:
        """Make room for how far an adapter moves the labels' embeddings, or take it away."""
        labels = self._buffers["label_embeddings"]
        empty = torch.zeros_like(labels) if moves and labels is not None else None
        self.label_moves = None if empty is None else nn.Parameter(empty, requires_grad=False)

    def stacked(
        self, embeddings: torch.Tensor, tensors: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Scale the cosines by each adapter's own factor."""
        labels = self._buffers["label_embeddings"]
        if labels is None:
            raise ModelError(
                "this base model has no labels yet: its logits follow from their names; call "
                "base.with_labels(names) first"
            )
        units = normalize(embeddings.float(), dim=-1)
        cosines = units @ labels.T
        factors = tensors["log_scale"].float().clamp(-_LARGEST, _LARGEST).exp() * self.scale
        grouped = cosines.reshape(len(factors), -1, len(labels))
        if "label_moves" in tensors:
            moves = tensors["label_moves"].float()
            inputs = units.reshape(len(factors), -1, units.shape[-1])
            grouped = torch.baddbmm(grouped, inputs, moves.transpose(1, 2))
        return (grouped * factors[:, None]).reshape(cosines.shape)


class TrainedHead(Head):
    """Logits are linear in the embedding; weights and biases belong to the adapter.

    Parameters
    ----------
    width : int
        Width of an embedding.
    labels : int
        K, the number of labels.
    scale : float, optional
        What embeddings of unit length are multiplied with, see `UNIT_SCALE`.
    """

    kind = "trained"

    def __init__(self, width: int, labels: int, scale: float | None = None) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.zeros(labels, width), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(labels), requires_grad=False)

    @property
    def num_labels(self) -> int:
        """K, how many labels it tells apart."""
        return len(self.bias)

    def stacked(
        self, embeddings: torch.Tensor, tensors: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Multiply by each adapter's own weights."""
        weight, bias = tensors["weight"].float(), tensors["bias"].float()
        scaled = embeddings.float() * (1.0 if self.scale is None else self.scale)
        grouped = scaled.reshape(len(weight), -1, weight.shape[-1])
        logits = torch.baddbmm(bias[:, None], grouped, weight.transpose(1, 2))
        return logits.flatten(0, 1)

    def shared(
        self, embeddings: torch.Tensor, tensors: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Return the logits of C adapters that all read the same embeddings.

        Parameters
        ----------
        embeddings : torch.Tensor
            Shape ``(n, width)``.
        tensors : Mapping[str, torch.Tensor]
            As in `stacked`.

        Returns
        -------
        torch.Tensor
            Shape ``(C, n, K)``.
        """
        weight, bias = tensors["weight"].float(), tensors["bias"].float()
        scaled = embeddings.float() * (1.0 if self.scale is None else self.scale)
        products = scaled @ weight.flatten(0, 1).T
        return products.view(len(scaled), *bias.shape).transpose(0, 1) + bias[:, None]


ENCODER_HEADS = (NamesHead.kind, TrainedHead.kind)
"""What a base model's configuration calls them."""
