"""What a batch of model inputs says about itself: padding, and which tokens are read."""

from __future__ import annotations

import torch
from torch import nn

from fedcert.models.encoder import EncoderClassifier
from fedcert.models.label_scorer import LabelScorer

__all__ = ["has_padding", "one_token_each", "read_positions", "reads_all", "shortest"]


def read_positions(model: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """Return the token that the head reads: the last real one of a decoder, else the first.

    An encoder with a pooling says so itself; None if all tokens are read.
    """
    if isinstance(model, EncoderClassifier):
        return model.read_positions(inputs)
    if isinstance(model, LabelScorer):
        return model.last_tokens(inputs)
    size = len(next(iter(inputs.values())))
    tokens = inputs.get("input_ids")
    pad = getattr(model.config, "pad_token_id", None)
    causal = any(getattr(module, "is_causal", False) for module in model.modules())
    if tokens is None or not causal:
        first = next(iter(inputs.values()))
        return torch.zeros(size, dtype=torch.long, device=first.device)
    # As transformers does: the padding token decides, not the attention mask.
    real = (tokens != pad) if pad is not None else torch.ones_like(tokens, dtype=torch.bool)
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    return (positions * real).argmax(dim=1)


def reads_all(model: nn.Module) -> bool:
    """Return whether the head reads all tokens."""
    return isinstance(model, EncoderClassifier) and model.reads_all


def one_token_each(inputs: dict[str, torch.Tensor], size: int) -> dict[str, torch.Tensor]:
    """Return the cheapest inputs that lead to the top layer; what they hold is replaced."""
    if "input_ids" not in inputs:
        return {name: tensor[:1] for name, tensor in inputs.items()}
    token = inputs["input_ids"][:1, :1]
    return {"input_ids": token.expand(size, 1)}


def has_padding(inputs: dict[str, torch.Tensor]) -> bool:
    """Return whether any example of a batch is shorter than the batch."""
    mask = inputs.get("attention_mask")
    return mask is not None and not bool(mask.bool().all())


def shortest(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the row numbers of a batch, the shortest examples first."""
    mask = inputs.get("attention_mask")
    if mask is None:
        return torch.arange(len(next(iter(inputs.values()))))
    return mask.flatten(1).sum(dim=1).argsort(stable=True)
