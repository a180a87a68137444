"""A device that is not there: tensors that say cuda:0, and compute on the CPU.

Like torch's fake tensors it needs no GPU and raises where devices are mixed. Unlike them it has
real numbers, so that code which looks at values runs as well, and what comes out can be
compared with what the CPU gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

SHADOW = torch.device("cuda:0")
_aten: Any = torch.ops.aten
_COPIES = {_aten._to_copy.default, _aten.copy_.default}
# A GPU takes indices from the CPU, but not values.
_INDEXED = {
    _aten.index.Tensor,
    _aten.index_put.default,
    _aten.index_put_.default,
    _aten._index_put_impl_.default,
}
_NOT_NUMPY = "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first"


class ShadowTensor(torch.Tensor):
    """A tensor on the device; torch's own code sees it as a meta tensor."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> ShadowTensor:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device="meta",
        )

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    device = property(lambda _self: SHADOW)
    is_cuda = property(lambda _self: True)
    is_cpu = is_meta = property(lambda _self: False)

    @property
    def data(self) -> torch.Tensor:  # type: ignore[override]
        return torch.Tensor.data.__get__(self)  # type: ignore[attr-defined]

    @data.setter
    def data(self, value: ShadowTensor) -> None:
        self.inner = value.inner
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]

    def __repr__(self) -> str:  # type: ignore[override]
        return f"ShadowTensor({self.inner!r})"

    def tolist(self) -> Any:
        return self.inner.tolist()

    def numpy(self, **_options: Any) -> Any:
        raise TypeError(_NOT_NUMPY)

    __array__ = numpy

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, _types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})


class _ShadowMode(TorchDispatchMode):
    """Sees what makes tensors on the device, and what mixes."""

    def __torch_dispatch__(
        self, func: Any, _types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        with self:  # what is made of other operations, which inference mode leaves whole
            made = func.decompose(*args, **(kwargs or {}))
        return _run(func, args, kwargs or {}) if made is NotImplemented else made


@contextmanager
def shadow_device() -> Iterator[torch.device]:
    """Let this machine have the device while the block runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch.cuda, "mem_get_info", lambda _device=None: (2**33, 2**33))
        # `torch.tensor` fills its memory on the CPU, and only then moves it.
        lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        try:
            with _ShadowMode():
                yield SHADOW
        finally:
            torch._C._set_only_lift_cpu_tensors(lifted)


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    here = any(isinstance(tensor, ShadowTensor) for tensor in tensors)
    if here and func not in _COPIES:
        _refuse_mixed(func, args, tensors)
    if kwargs.get("device") is not None:
        here = torch.device(kwargs["device"]).type != "cpu"
        kwargs = {**kwargs, "device": torch.device("cpu")}
    result = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    if func._schema.is_mutable and func._schema.name.endswith("_"):
        return args[0]
    return tree_map(_shadow, result) if here else result


def _shadow(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    with torch.inference_mode(False):  # a view of an ordinary tensor has to be one
        return ShadowTensor(value)


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, ShadowTensor) else value


def _refuse_mixed(func: Any, args: Any, tensors: list[torch.Tensor]) -> None:
    """Raise `RuntimeError` as a GPU does; numbers alone may come from the CPU."""
    if func in _INDEXED:
        tensors = [value for value in (args[0], *args[2:]) if isinstance(value, torch.Tensor)]
        # Positions on the device do not index what is on the CPU.
        if not isinstance(args[0], ShadowTensor):
            tensors = [args[0]]
    strange = [t for t in tensors if not isinstance(t, ShadowTensor) and t.dim() > 0]
    if strange:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"cuda:0 and cpu! ({func}, {[tuple(t.shape) for t in tensors]})"
        )
