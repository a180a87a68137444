"""What enters the linear modules of a frozen base model: mean and deviation of each.

They describe a set of inputs without its labels, and a small net can read off them which parts
of an adapter a client needs (FedP2EFT, Lee et al., arXiv 2502.04387, section 3.2). Padding says
how long texts are and little else, so it does not count here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fedcert.adapters.forward import AdaptedModel
from fedcert.devices import exact_float32, moved
from fedcert.errors import AdapterError
from fedcert.models.base import BaseModel

__all__ = ["count_linears", "layer_statistics"]

_BATCH = 32


def count_linears(base: BaseModel) -> int:
    """Return L, of how many linear modules `layer_statistics` tells."""
    return len(_linears(base))


def layer_statistics(
    model: AdaptedModel, inputs: npt.NDArray[Any], *, batch_size: int = _BATCH
) -> npt.NDArray[np.float64]:
    """Return mean and standard deviation of all that enters each linear module.

    The base model runs without an adapter. An entry counts once for each token that is no
    padding. The modules are those of the transformer's layers: heads differ between clients.

    Parameters
    ----------
    model : AdaptedModel
        Its base model runs.
    inputs : numpy.ndarray
        Raw inputs, as examples have them, shape ``(n,)`` or more; at least one.
    batch_size : int (default: 32)
        How many run at once. The result does not depend on it beyond rounding.

    Returns
    -------
    numpy.ndarray
        Float64, shape ``(2 L,)``: the means from the lowest layer up, then the deviations.

    Raises
    ------
    AdapterError
        If there is no input, or the layers have no linear modules.
    """
    if len(inputs) == 0:
        raise AdapterError("there are no inputs to take statistics of")
    base, encoded = model.base, model.task.inputs.encode(inputs)
    moments = {name: _Moments() for name in _linears(base)}
    with torch.no_grad(), exact_float32(), _watched(base, moments) as watch:
        for first in range(0, len(inputs), batch_size):
            batch = {name: t[first : first + batch_size] for name, t in encoded.items()}
            watch.mask = batch.get("attention_mask")
            base.model(**moved(batch, base.device))
    means = [each.mean for each in moments.values()]
    deviations = [each.deviation for each in moments.values()]
    return np.array([*means, *deviations])


@dataclass
class _Moments:
    """Count, mean, and sum of squared deviations of the numbers seen so far."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def merge(self, values: torch.Tensor) -> None:
        """Add numbers (Chan, Golub and LeVeque, COMPSTAT 1982, Eq. 2.1)."""
        values = values.double()
        count = values.numel()
        if count == 0:
            return
        mean = float(values.mean())
        apart, total = mean - self.mean, self.count + count
        self.squares += float((values - mean).square().sum())
        self.squares += apart**2 * self.count * count / total
        self.mean += apart * count / total
        self.count = total

    @property
    def deviation(self) -> float:
        return float(np.sqrt(self.squares / max(self.count - 1, 1)))


@dataclass
class _Watch:
    """The mask of the batch that is running."""

    mask: torch.Tensor | None = field(default=None)


@contextmanager
def _watched(base: BaseModel, moments: dict[str, _Moments]) -> Iterator[_Watch]:
    """Let the linear modules tell what enters them; no hook stays behind."""
    watch, handles = _Watch(), []

    def hook(seen: _Moments) -> Any:
        def take(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            seen.merge(_real(args[0].detach().cpu(), watch.mask))

        return take

    try:
        for name, module in _linears(base).items():
            handles.append(module.register_forward_pre_hook(hook(moments[name])))
        yield watch
    finally:
        for handle in handles:
            handle.remove()


def _real(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return what is no padding: shape ``(n, tokens, width)``, or with both in one axis."""
    if mask is None:
        return values
    kept = mask.bool()
    if values.shape[:2] == kept.shape and values.dim() == 3:
        return values[kept]
    if values.dim() == 2 and len(values) == kept.numel():
        return values[kept.flatten()]
    return values


def _linears(base: BaseModel) -> dict[str, nn.Linear]:
    layers = f"{base.layout.layers}."
    found = {
        name: module
        for name, module in base.model.named_modules()
        if name.startswith(layers) and isinstance(module, nn.Linear)
    }
    if not found:
        raise AdapterError("the layers of this base model have no linear modules")
    return found
