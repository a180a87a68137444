"""Cutting a model after some of its layers, which makes a smaller base model of it.

What stands behind the layers (a last norm, the pooling, the head) reads the output of the last
layer that is left. The result is a base model like any other, with a digest of its own: whoever
wants an early exit federates on it, and its adapters know no other depth.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from fedcert.errors import ModelError
from fedcert.models.layout import layer_list

__all__ = ["cut_layers"]


def cut_layers(model: nn.Module, depth: int, *, name: str) -> None:
    """Leave the first layers of a model alone, in place.

    Parameters
    ----------
    model : torch.nn.Module
        As `transformers` loads it.
    depth : int
        How many layers stay, from 1 on.
    name : str
        The model's name, for messages.

    Raises
    ------
    ModelError
        If there are fewer layers, or the configuration does not count them.
    """
    place, layers = layer_list(model)
    config: Any = model.config
    if not 1 <= depth <= len(layers):
        raise ModelError(
            f"cannot cut {name!r} after layer {depth}: it has {len(layers)} layers in {place!r}"
        )
    if getattr(config, "num_hidden_layers", None) != len(layers):
        # ALBERT runs one group of weights several times over.
        raise ModelError(
            f"cannot cut {name!r}: its configuration does not count the {len(layers)} layers "
            f"in {place!r}, so a cut model would not load again"
        )
    kinds = getattr(config, "layer_types", None)
    if isinstance(kinds, list):
        config.layer_types = kinds[:depth]
    config.num_hidden_layers = depth
    del layers[depth:]
