"""Weights in eight bits: a quarter of the memory, the same answer in any batch.

Each output channel of a weight has one scale, fixed when the model is loaded. Activations
stay as they are. A scale taken over a batch of activations would let an example's label
depend on its neighbors, which no certificate could speak about.
"""

from __future__ import annotations

import torch
from torch import nn

from fedcert.errors import ModelError

__all__ = ["QUANTIZATIONS", "Int8Linear", "check_quantization", "quantize_linears"]

QUANTIZATIONS = ("none", "int8")
_CHANNELS = 64
_LEVELS = 127


class Int8Linear(nn.Linear):
    """A frozen linear module whose weight is kept as int8, with a scale per output.

    It is an `nn.Linear` to PEFT, which adapts it like any other.

    Parameters
    ----------
    linear : torch.nn.Linear
        What it replaces. A weight w becomes ``round(w / s)`` with s the largest absolute
        weight of its output channel over 127.
    """

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)  # the constructor of `nn.Linear` would allocate a weight
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach()
        levels = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
        scale = torch.empty(len(weight), 1, dtype=weight.dtype, device=weight.device)
        # A few channels at a time: float32 copies of whole weights leave holes between the
        # levels, which together may take as much memory as all levels do.
        for start in range(0, len(weight), _CHANNELS):
            some = slice(start, start + _CHANNELS)
            part = weight[some].float()
            peak = part.abs().amax(dim=1, keepdim=True)
            # A channel of zeros has no scale of its own.
            scale[some] = torch.where(peak > 0, peak / _LEVELS, 1.0).to(weight.dtype)
            levels[some] = (part / scale[some].float()).round().clamp(-_LEVELS, _LEVELS)
        self.register_buffer("levels", levels)
        self.scale = nn.Parameter(scale[:, 0], requires_grad=False)
        self.bias = linear.bias

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        """The weight that is computed with, ``(out, in)``."""
        levels = self.get_buffer("levels")
        return levels.to(self.scale.dtype) * self.scale[:, None]

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Multiply by the levels, then by the scales."""
        levels = self.get_buffer("levels").to(input.dtype)
        output = nn.functional.linear(input, levels) * self.scale
        return output if self.bias is None else output + self.bias


def quantize_linears(model: nn.Module, layers: str) -> None:
    """Replace the linear modules in a model's layers, in place; embeddings and head stay.

    Parameters
    ----------
    model : torch.nn.Module
        In float32 or bfloat16.
    layers : str
        Dotted name of the list of layers.
    """
    for layer in model.get_submodule(layers).children():
        for name, module in list(layer.named_modules()):
            if type(module) is nn.Linear:
                layer.set_submodule(name, Int8Linear(module))


def check_quantization(quantization: str) -> None:
    """Raise `ModelError` unless there is a quantization of that name."""
    if quantization not in QUANTIZATIONS:
        raise ModelError(
            f"there is no quantization {quantization!r} here; choose "
            f"{' or '.join(QUANTIZATIONS)}"
        )
