"""A pytest plugin: products of matrices that round otherwise, as on another processor.

Each element is moved by at most one unit in the last place, by a pattern that depends on the
shape alone: like another processor this one gives the same result every time.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import torch

_LARGEST = 2**22


@cache
def _factors(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(repr((shape, dtype)).encode()))
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
