"""What an upload must keep to. Every uploaded adapter is hostile until checked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedcert.adapters.space import AdapterSpace
from fedcert.arrays import FloatArray
from fedcert.errors import PoolError

__all__ = ["UploadLimits", "check_upload", "largest_upload"]

# What a tensor's name, shape, and format take in a message, generously.
_OVERHEAD = 4096


@dataclass(frozen=True)
class UploadLimits:
    """Limits for one upload.

    Parameters
    ----------
    max_norm : float (default: 1000)
        Largest Euclidean norm of the vector; trained adapters stay far below.
    """

    max_norm: float = 1e3


def largest_upload(space: AdapterSpace) -> int:
    """Return the bytes that no adapter of a space exceeds in a message.

    Twice what float32 takes: an adapter of the wrong precision is still decoded, so that its
    client is told what is wrong with it.
    """
    return 8 * space.dimension + _OVERHEAD * (len(space.shapes()) + 1)


def check_upload(
    vector: FloatArray,
    *,
    examples: int,
    loss: float,
    limits: UploadLimits,
    residual: float = 0.0,
) -> None:
    """Raise `PoolError` unless a decoded upload keeps to the limits.

    Layout and finiteness are checked by the codec before.

    Parameters
    ----------
    vector : numpy.ndarray
        The adapter, shape ``(d,)``.
    examples : int
        How many examples it was trained on, by the client's word.
    loss : float
        Its training loss (nats), by the client's word.
    limits : UploadLimits
        What an upload must keep to.
    residual : float (default: 0.0)
        Fraction of the squared norm that projection lost.
    """
    norm = float(np.linalg.norm(vector))
    if norm > limits.max_norm:
        raise PoolError(f"its norm is {norm:.3g}, above the limit of {limits.max_norm:g}")
    if norm == 0.0:
        raise PoolError("it is all zeros: nothing was trained")
    if not 1 <= examples < 2**53:
        raise PoolError(f"it claims to be trained on {examples} examples")
    if not np.isfinite(loss):
        raise PoolError("its training loss is not finite")
    if not 0 <= residual <= 1:
        raise PoolError(f"it claims to have lost a share of {residual:g} in projection")
