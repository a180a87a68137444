"""Classifying with an encoder as it was trained: pooled, then read by a head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import normalize

from fedcert.canonical import canonical_json
from fedcert.label_set import LabelSet
from fedcert.models.dual_encoder import TextTower
from fedcert.models.heads import Head
from fedcert.models.pooling import check_pooling, pool, read_positions

__all__ = ["LABEL_MOVES", "TASK_HEAD", "EncoderClassifier", "EncoderLogits"]

TASK_HEAD = "task_head"
"""Name of the head among an `EncoderClassifier`'s modules; no encoder has a module of it."""

LABEL_MOVES = f"{TASK_HEAD}.label_moves"
"""Name of the tensor that says how far an adapter moves its labels' embeddings."""


class EncoderLogits(NamedTuple):
    """Logits of K labels, shape ``(n, K)``."""

    logits: torch.Tensor


def _nested(dense: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules without modules of their own, in the order of the forward pass."""
    return (layer for layer in dense.modules() if not [*layer.children()])


class EncoderClassifier(nn.Module):
    """An encoder with a stated pooling and a head, which gives logits like any classifier.

    The modules keep the names that they have in the encoder, so that an exported adapter
    loads there.

    Parameters
    ----------
    encoder : torch.nn.Module
        An encoder of `transformers` whose first output are the hidden states.
    head : Head
        What reads the embeddings.
    pooling : str
        One of `fedcert.models.POOLINGS`.
    normalize_embeddings : bool
        Whether embeddings are brought to length 1 before the head reads them.
    dense : torch.nn.Module, optional
        What stands between pooling and normalization.
    labels : LabelSet, optional
        What the head's label embeddings were made from.
    text_tower : TextTower, optional
        What embeds the labels' names, if not the encoder itself; it does not run over examples.
    """

    def __init__(
        self,
        encoder: Any,
        head: Head,
        *,
        pooling: str,
        normalize_embeddings: bool,
        dense: nn.Module | None = None,
        labels: LabelSet | None = None,
        text_tower: TextTower | None = None,
    ) -> None:
        super().__init__()
        check_pooling(pooling)
        for name, child in encoder.named_children():
            self.add_module(name, child)
        for name, parameter in encoder.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in encoder.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        if dense is not None:
            self.add_module("task_dense", dense)
        self.task_head = head
        self.config, self.main_input_name = encoder.config, str(encoder.main_input_name)
        self.labels, self.text_tower = labels, text_tower
        # In a tuple, since its parts are registered already, under their own names.
        self._encoder = (encoder,)
        self._pooling, self._normalize = pooling, normalize_embeddings
        # The digest of the base model covers buffers, and so how the encoder is read.
        recipe = {
            "head": head.kind,
            "normalize": normalize_embeddings,
            "pooling": pooling,
            "scale": getattr(head, "scale", None),
        }
        if text_tower is not None:
            recipe["text_tower"] = text_tower.digest
        if dense is not None:
            # Their weights are in the digest themselves; what is between them is not.
            recipe["dense"] = [type(layer).__name__ for layer in _nested(dense)]
        bytes_of_recipe = torch.tensor(list(canonical_json(recipe)), dtype=torch.uint8)
        self.register_buffer("task_recipe", bytes_of_recipe)

    @property
    def stock(self) -> Any:
        """The encoder, as `transformers` made it."""
        return self._encoder[0]

    def with_head(self, head: Head, labels: LabelSet | None) -> EncoderClassifier:
        """Return the same encoder, sharing its weights, under another head."""
        other = EncoderClassifier(
            self.stock,
            head,
            pooling=self._pooling,
            normalize_embeddings=self._normalize,
            dense=self._modules.get("task_dense"),
            labels=labels,
            text_tower=self.text_tower,
        )
        return other.train(self.training)

    @property
    def reads_all(self) -> bool:
        """Whether an embedding depends on all hidden states, and not on those at one place."""
        return self._place not in {"cls", "last"}

    @property
    def _place(self) -> str:
        # CLIP's image tower projects what its first token became.
        projects = self._pooling == "own" and hasattr(self.stock, "visual_projection")
        return "cls" if projects else self._pooling

    def read_positions(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor | None:
        """Return the position that the pooling reads, ``(n,)``; None if it reads all."""
        return read_positions(inputs, self._place)

    def embed(self, **inputs: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of a batch, ``(n, width)``, in float32.

        Parameters
        ----------
        **inputs
            What the encoder takes.
        """
        outputs = self.stock(**inputs)
        if self._pooling == "own":
            made = getattr(outputs, "image_embeds", None)
            pooled = (outputs.pooler_output if made is None else made).float()
        else:
            hidden = outputs.last_hidden_state
            pooled = pool(hidden, inputs.get("attention_mask"), self._pooling)
        dense = self._modules.get("task_dense")
        if dense is not None:
            pooled = dense(pooled.to(next(dense.parameters()).dtype)).float()
        return normalize(pooled, dim=-1) if self._normalize else pooled

    def forward(self, **inputs: torch.Tensor) -> EncoderLogits:
        """Return the logits of a batch."""
        return EncoderLogits(self.task_head(self.embed(**inputs)))
