"""Changing what a module's forward pass does, for a while and without a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["enter_with", "forward_replaced", "own_linear", "skipping"]


@contextmanager
def forward_replaced(module: nn.Module, replacement: Callable[..., Any]) -> Iterator[None]:
    """Give a module another forward function while the block runs."""
    own = vars(module).get("forward")
    module.forward = replacement
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


@contextmanager
def skipping(layers: nn.ModuleList, count: int) -> Iterator[None]:
    """Let the first `count` layers of a list hand on their input while the block runs.

    They stay in the list: a model may look up a mask by a layer's position.
    """
    with ExitStack() as stack:
        for layer in list(layers)[:count]:
            stack.enter_context(forward_replaced(layer, _hand_on))
        yield


def _hand_on(hidden_states: torch.Tensor, *_args: Any, **_kwargs: Any) -> torch.Tensor:
    return hidden_states


def enter_with(stack: ExitStack, layer: nn.Module, hidden: torch.Tensor) -> None:
    """Let a layer be called with other hidden states until the stack closes."""

    def enter(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (hidden, *args[1:])

    stack.callback(layer.register_forward_pre_hook(enter).remove)


def own_linear(weight: torch.Tensor, bias: torch.Tensor | None) -> Callable[..., torch.Tensor]:
    """Replace a linear module's output by one with weights per adapter."""

    def hook(_module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        grouped = args[0].reshape(len(weight), -1, weight.shape[-1])
        result = torch.bmm(grouped, weight.transpose(1, 2))
        if bias is not None:
            result = result + bias[:, None]
        return result.reshape(output.shape)

    return hook
