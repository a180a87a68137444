"""Changing what a module's forward pass does, for a while and without a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

__all__ = [
    "FirstLayerReached",
    "checkpointed",
    "enter_with",
    "entering",
    "forward_replaced",
    "own_linear",
    "repeat",
    "returns_tuples",
    "skipping",
    "until_done",
]


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
def checkpointed(layers: nn.ModuleList) -> Iterator[None]:
    """Let layers that run in the block keep their inputs alone, and run again for gradients.

    Chen et al., arXiv 1604.06174: memory for one layer in the place of all, for a third more
    time. Hooks of their modules have to be there when they run again.
    """
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(forward_replaced(layer, _again(layer.forward)))
        yield


def _again(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        # A decoder's cache would hold the keys of both runs; nothing here reads it.
        uncached: dict[str, Any] = {
            name: None if "past_key" in name else value for name, value in kwargs.items()
        }
        return checkpoint(forward, *args, use_reentrant=False, **uncached)

    return run


@contextmanager
def skipping(layers: nn.ModuleList, count: int, *, in_tuples: bool = False) -> Iterator[None]:
    """Let the first `count` layers of a list hand on their input while the block runs.

    They stay in the list: a model may look up a mask by a layer's position.

    Parameters
    ----------
    layers : torch.nn.ModuleList
        A model's layers.
    count : int
        How many to skip.
    in_tuples : bool (default: False)
        Whether this model's layers return tuples, hidden states first.

    Yields
    ------
    None
        Nothing; the layers are as they were when the block ends.
    """
    hand_on = _hand_on_in_tuple if in_tuples else _hand_on
    with ExitStack() as stack:
        for layer in list(layers)[:count]:
            stack.enter_context(forward_replaced(layer, hand_on))
        yield


def _hand_on(hidden_states: torch.Tensor, *_args: Any, **_kwargs: Any) -> torch.Tensor:
    return hidden_states


def _hand_on_in_tuple(
    hidden_states: torch.Tensor, *_args: Any, **_kwargs: Any
) -> tuple[torch.Tensor]:
    return (hidden_states,)


def enter_with(stack: ExitStack, layer: nn.Module, hidden: torch.Tensor) -> None:
    """Let a layer be called with other hidden states until the stack closes.

    Parameters
    ----------
    stack : ExitStack
        Restores the layer when it closes.
    layer : nn.Module
        The layer whose first argument is replaced.
    hidden : torch.Tensor
        The hidden states that it gets, shape ``(n, tokens, width)``.
    """

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


class FirstLayerReached(Exception):  # noqa: N818  (a signal, not an error)
    """Ends a forward pass once the first adapted layer has been reached."""


def entering(hidden: torch.Tensor) -> Callable[..., tuple[Any, ...] | None]:
    """Return a hook that replaces a layer's input the first time it runs.

    ALBERT runs one layer several times, and only its first input was saved.
    """
    saved = [hidden]

    def enter(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return (saved.pop(), *args[1:]) if saved else None

    return enter


def until_done(model: nn.Module, inputs: dict[str, torch.Tensor]) -> None:
    """Run a model until a hook raises `FirstLayerReached`."""
    with suppress(FirstLayerReached):
        model(**inputs)


def repeat(tensor: torch.Tensor, copies: int) -> torch.Tensor:
    """Repeat a batch `copies` times, adapter by adapter."""
    if copies == 1:
        return tensor
    return tensor.expand(copies, *tensor.shape).flatten(0, 1)


def returns_tuples(model: nn.Module, layer: nn.Module, inputs: dict[str, torch.Tensor]) -> bool:
    """Return whether a model's layers return tuples, by running the first one on an example.

    Parameters
    ----------
    model : nn.Module
        The whole model.
    layer : nn.Module
        Its first layer.
    inputs : dict
        An example, as the model takes it.

    Returns
    -------
    bool
        True if hidden states come as the first entry of a tuple.
    """
    found: list[bool] = []

    def stop(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        found.append(isinstance(output, tuple))
        raise FirstLayerReached

    handle = layer.register_forward_hook(stop)
    try:
        until_done(model, {name: tensor[:1] for name, tensor in inputs.items()})
    finally:
        handle.remove()
    return found == [True]
