"""Heads with weights per adapter, where many adapters run as one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import nn

from fedcert.adapters.patching import own_linear
from fedcert.adapters.space import AdapterSpace
from fedcert.errors import ModelError
from fedcert.models.base import BaseModel
from fedcert.models.encoder import TASK_HEAD, EncoderClassifier
from fedcert.named_arrays import under

__all__ = ["head_hooks", "linear_heads"]

Hook = Callable[..., torch.Tensor]


def head_hooks(
    model: nn.Module, linear: Sequence[str], parts: dict[str, torch.Tensor]
) -> Iterator[tuple[str, Hook]]:
    """Yield the modules of a head, and hooks that give them each adapter's own weights.

    Parameters
    ----------
    model : torch.nn.Module
        The base model.
    linear : Sequence[str]
        What `linear_heads` found.
    parts : dict
        The adapters' tensors by name, ``(C, ...)``.

    Yields
    ------
    tuple
        Name of a module, and the hook that replaces its output.
    """
    for name in linear:
        yield name, own_linear(parts[f"{name}.weight"], parts.get(f"{name}.bias"))
    if isinstance(model, EncoderClassifier):
        yield TASK_HEAD, _beside(parts)


def _beside(parts: dict[str, torch.Tensor]) -> Hook:
    """Replace the logits of a head beside the encoder."""
    tensors = under(f"{TASK_HEAD}.", parts)

    def hook(head: Any, args: tuple[Any, ...], _output: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, head.stacked(args[0], tensors))

    return hook


def linear_heads(base: BaseModel, space: AdapterSpace) -> list[str]:
    """Return the names of the head's linear modules; nothing else may be in the head."""
    if not space.head_module:
        return []
    module = base.model.get_submodule(space.head_module)
    names = [
        f"{space.head_module}.{name}".rstrip(".")
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear)
    ]
    held = {f"{name}.{tensor}" for name in names for tensor in ("weight", "bias")}
    if not {tensor.name for tensor in space.head} <= held:
        raise ModelError(
            f"the head {space.head_module!r} holds more than linear modules; "
            "fedcert cannot batch adapters over it"
        )
    return names
