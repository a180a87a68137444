"""The strict codec between vectors and named tensors.

PEFT loads a state dict with renamed or missing LoRA keys without a word; here anything that
does not match name by name and shape by shape is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedcert.adapters.space import AdapterSpace
from fedcert.errors import AdapterError

__all__ = ["decode", "encode"]


def encode(
    space: AdapterSpace, vector: npt.NDArray[np.floating[Any]]
) -> dict[str, npt.NDArray[np.float32]]:
    """Turn a vector of shape ``(d,)`` into named float32 tensors."""
    parts = space.split(torch.from_numpy(np.asarray(vector, dtype=np.float32)))
    return {name: part.contiguous().numpy() for name, part in parts.items()}


def decode(
    space: AdapterSpace, tensors: Mapping[str, npt.NDArray[Any]], *, space_digest: str
) -> npt.NDArray[np.float64]:
    """Turn named tensors back into a vector of shape ``(d,)``.

    Parameters
    ----------
    space : AdapterSpace
        The space that the tensors must belong to.
    tensors : Mapping[str, numpy.ndarray]
        What `encode` made.
    space_digest : str
        The digest that the sender declared.

    Returns
    -------
    numpy.ndarray
        Float64, shape ``(d,)``.

    Raises
    ------
    AdapterError
        On another space, a missing or extra tensor, another shape or dtype, or a value
        that is not finite.
    """
    if space_digest != space.digest:
        raise AdapterError(
            f"the adapter was made for another adapter space ({space_digest[:12]} instead of "
            f"{space.digest[:12]}): another base model, rank, or set of modules"
        )
    shapes = space.shapes()
    missing, extra = shapes.keys() - tensors.keys(), tensors.keys() - shapes.keys()
    if missing or extra:
        found = [f"missing {name!r}" for name in sorted(missing)]
        found += [f"unexpected {name!r}" for name in sorted(extra)]
        raise AdapterError(
            f"the adapter's tensors do not match the space: {', '.join(found[:4])}"
        )
    for name, shape in shapes.items():
        _check_tensor(name, tensors[name], shape)
    parts = [tensors[name].astype(np.float64).ravel() for name in shapes]
    return np.concatenate(parts)


def _check_tensor(name: str, tensor: npt.NDArray[Any], shape: tuple[int, ...]) -> None:
    if tensor.dtype != np.float32:
        raise AdapterError(f"the adapter's {name!r} is {tensor.dtype}; it must be float32")
    if tensor.shape != shape:
        raise AdapterError(
            f"the adapter's {name!r} has shape {tensor.shape}; it must be {shape}"
        )
    if not np.isfinite(tensor).all():
        raise AdapterError(f"the adapter's {name!r} holds NaN or an infinity")
