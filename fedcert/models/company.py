"""Telling whether a text means the same to a model alone as beside a longer one.

A certificate bounds the error of a predictor, which gives one label for an example. Some
models look at the batch instead: with ``rope_type: longrope`` the longest text chooses the
frequencies of all others. Such a model has no error of its own, and is refused.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from fedcert.devices import exact_float32
from fedcert.errors import ModelError
from fedcert.models.base import BaseModel
from fedcert.models.encoder import EncoderClassifier
from fedcert.models.label_scorer import LabelScorer

__all__ = ["check_company"]

# Largest difference of what the head reads, as a share of its largest number; padding and
# the shapes of products round by far less.
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
_SHORT = 3
_FAMILIAR: WeakKeyDictionary[nn.Module, set[int]] = WeakKeyDictionary()


def check_company(base: BaseModel, *, max_length: int, pad: int) -> None:
    """Run a short text alone and beside one of `max_length` tokens, once for each model.

    Parameters
    ----------
    base : BaseModel
        A model for texts.
    max_length : int
        Tokens of the longest text that it is to see.
    pad : int
        The token that texts are padded with, on the right.

    Raises
    ------
    ModelError
        If the short text's hidden states (of a label scorer, its logits) differ.
    """
    # An encoder reads a text in the same way whatever the labels.
    model = base.model.stock if isinstance(base.model, EncoderClassifier) else base.model
    known = _FAMILIAR.setdefault(model, set())
    if max_length <= _SHORT or max_length in known:
        return
    words = torch.arange(max_length) * 7 + 3
    words %= int(base.model.config.vocab_size)  # type: ignore[union-attr, arg-type]
    words[words == pad] = (pad + 1) % int(base.model.config.vocab_size)  # type: ignore[union-attr, arg-type]
    ids = words.repeat(2, 1)
    ids[0, _SHORT:] = pad
    mask = torch.ones_like(ids)
    mask[0, _SHORT:] = 0
    try:
        alone = _read(base, ids[:1, :_SHORT], mask[:1, :_SHORT])
        beside = _read(base, ids, mask)[:1]
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"the base model {base.name!r} cannot run a text of {max_length} tokens: {reason}; "
            "set a smaller max_length, or use another base model"
        ) from error
    if beside.shape != alone.shape:  # what the head reads at each token
        beside = beside[:, :_SHORT]
    difference = float((alone - beside).abs().max() / alone.abs().max().clamp(min=1e-6))
    # By the weights' precision: an encoder's embeddings are float32 whatever it computes in.
    if not difference <= _TOLERANCE.get(next(model.parameters()).dtype, 1e-4):
        raise ModelError(
            f"the base model {base.name!r} gives a text other values beside a long text than "
            f"alone (they differ by {difference:.1e}{_reason(base)}). Its predictions are no "
            "function of the example, so no certificate could speak of it; use another base "
            "model, or a smaller max_length if it does not happen there"
        )
    known.add(max_length)


def _reason(base: BaseModel) -> str:
    rope = getattr(base.model.config, "rope_parameters", None)
    kind = rope.get("rope_type") if isinstance(rope, dict) else None
    if kind in {None, "default"}:
        return ""
    return f"; its rope_type {kind!r} looks at the longest text of a batch"


@torch.no_grad()
@exact_float32()
def _read(base: BaseModel, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return what the head reads: a new head gives zeros whatever it reads."""
    ids, mask = ids.to(base.device), mask.to(base.device)
    if isinstance(base.model, EncoderClassifier):
        return base.model.embed(input_ids=ids, attention_mask=mask)
    if isinstance(base.model, LabelScorer) and not base.num_labels:
        tokens: torch.Tensor = base.model.stock(input_ids=ids, attention_mask=mask).logits
        return tokens
    if not base.layout.head:
        logits: torch.Tensor = base.model(input_ids=ids, attention_mask=mask).logits
        # Without appended phrases logits are defined up to a constant.
        return logits - logits.mean(dim=-1, keepdim=True)
    seen: list[torch.Tensor] = []

    def look(_module: nn.Module, args: tuple[Any, ...]) -> None:
        seen.append(args[0])

    handle = base.model.get_submodule(base.layout.head).register_forward_pre_hook(look)
    try:
        base.model(input_ids=ids, attention_mask=mask)
    finally:
        handle.remove()
    return seen[0]
