"""A pytest plugin: products of matrices that round otherwise, as on another processor.

Each element is moved by at most one unit in the last place, by a pattern that depends on the
shape alone: like another processor this one gives the same result every time. Decompositions
are moved as well, and with them every digest of a fitted prior and every seed that follows
from it: a test that holds by the luck of one draw fails here. ``FEDCERT_ROUNDING``, a number,
chooses the pattern.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import numpy as np
import torch

_PATTERN = os.environ.get("FEDCERT_ROUNDING", "1")
_LARGEST = 2**22


@cache
def _factors(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(
        zlib.crc32(repr((shape, dtype, _PATTERN)).encode())
    )
    # What is made in inference mode cannot be used outside of it, and this is kept.
    with torch.inference_mode(False):
        steps = torch.randint(-1, 2, shape, generator=generator).double()
        return (1 + steps * torch.finfo(dtype).eps).to(dtype)


def _rounded(product: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(product)
    def otherwise(*arguments: Any, **options: Any) -> Any:
        found = product(*arguments, **options)
        plain = type(found) is torch.Tensor and options.get("out") is None
        if not plain or found.dtype not in (torch.float32, torch.float64):
            return found
        if found.numel() == 0 or found.numel() > _LARGEST or found.device.type != "cpu":
            return found
        return found * _factors(tuple(found.shape), found.dtype)

    return otherwise


for _owner, _names in (
    (torch.nn.functional, ("linear", "scaled_dot_product_attention")),
    (torch, ("bmm", "matmul", "mm", "baddbmm")),
    (torch.Tensor, ("__matmul__",)),
):
    for _name in _names:
        setattr(_owner, _name, _rounded(getattr(_owner, _name)))


def _decomposed(decomposition: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(decomposition)
    def otherwise(*arguments: Any, **options: Any) -> Any:
        found = decomposition(*arguments, **options)
        if isinstance(found, np.ndarray):
            return _moved(found)
        parts = [_moved(part) for part in found]
        return type(found)(*parts) if hasattr(found, "_fields") else tuple(parts)

    return otherwise


def _moved(array: Any) -> Any:
    if not isinstance(array, np.ndarray) or array.dtype not in (np.float32, np.float64):
        return array
    factors = _factors(array.shape, torch.from_numpy(np.empty(0, array.dtype)).dtype)
    return array * factors.numpy()


for _name in ("svd", "eigh"):
    setattr(np.linalg, _name, _decomposed(getattr(np.linalg, _name)))
