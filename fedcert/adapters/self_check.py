"""Telling whether a model runs in parts as it does as a whole, and refusing it if not."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from fedcert.errors import ModelError
from fedcert.models.layout import SUPPORTED

__all__ = ["never_ran", "not_adaptable", "problem_of"]

# Largest difference between a reduced model's logits and the whole one's that passes.
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}


def problem_of(
    run: Callable[[], torch.Tensor], whole: torch.Tensor, precision: torch.dtype
) -> str:
    """Say how logits differ from those of the whole model; empty if they do not.

    Parameters
    ----------
    run : callable
        Returns the logits of a model that runs in parts.
    whole : torch.Tensor
        Those of the whole model.
    precision : torch.dtype
        What the layers compute in. A head may give logits in float32 all the same.

    Returns
    -------
    str
        A clause about the difference, or nothing.
    """
    try:
        difference = float((whole - run()).abs().max() / whole.abs().max().clamp(min=1.0))
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        return f"it fails: {error}"
    if difference <= _TOLERANCE[precision]:  # NaN is a difference too
        return ""
    return f"it differs by {difference:.1e}"


def not_adaptable(model: nn.Module, reason: str) -> ModelError:
    """Return the error that names the architecture and says what fits."""
    return ModelError(f"fedcert cannot adapt {type(model).__name__}: {reason}; {SUPPORTED}")


def never_ran(model: nn.Module, layer: int) -> ModelError:
    """Return the error for a model that leaves out a layer."""
    return not_adaptable(model, f"it never ran its layer {layer}")
