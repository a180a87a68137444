"""Adapters that predict one label whatever the input: a head of zeros but for its bias."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedcert.adapters.space import AdapterSpace

__all__ = ["constant_adapters", "head_bias"]


def constant_adapters(space: AdapterSpace, labels: int) -> npt.NDArray[np.float64]:
    """Return one adapter for each label that always predicts it.

    Parameters
    ----------
    space : AdapterSpace
        Where they live.
    labels : int
        K, the number of labels.

    Returns
    -------
    numpy.ndarray
        Shape ``(K, d)``: zero but for a 1 in the bias of the head's last layer, so that the
        label's logit is 1 and all others are 0. Shape ``(0, d)`` if there is no such bias, as
        with label scorers, which have no head.
    """
    place = head_bias(space, labels)
    if place is None:
        return np.zeros((0, space.dimension))
    adapters = np.zeros((labels, space.dimension))
    adapters[:, place] = np.eye(labels)
    return adapters


def head_bias(space: AdapterSpace, labels: int) -> slice | None:
    """Return where in an adapter the bias of the head's last layer stands, if there is one."""
    end = space.dimension
    for tensor in reversed(space.head):
        size = int(np.prod(tensor.shape))
        if tensor.name.endswith("bias") and tensor.shape == (labels,):
            return slice(end - size, end)
        end -= size
    return None
