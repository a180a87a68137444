"""Tensors in a file: the bits that were written, the oldest overwritten, and a full disk."""

from __future__ import annotations

import tempfile
from typing import Any

import pytest
import torch

from fedcert.adapters.spilled import SpilledTensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_bits_come_back(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        bytes([n]): torch.randn(n, 3, generator=generator).to(dtype) for n in range(1, 6)
    }
    ring = SpilledTensors(1)
    for key, tensor in tensors.items():
        ring.keep(key, tensor.T)
    for key, tensor in tensors.items():
        found = ring.read(key)
        assert found is not None
        assert found.dtype is dtype
        assert torch.equal(found, tensor.T)
    assert ring.read(b"other") is None


def test_the_oldest_are_overwritten_and_never_read_in_part() -> None:
    ring = SpilledTensors(100 * 4 / 2**20)  # a hundred numbers
    sizes = [40, 50, 30, 60, 10, 100, 7, 101, 93, 20]
    tensors = {bytes([n]): torch.full((size,), float(n)) for n, size in enumerate(sizes)}
    for count, (key, tensor) in enumerate(tensors.items(), start=1):
        ring.keep(key, tensor)
        assert (key in ring) == (len(tensor) <= 100)
        kept = [(k, t) for k, t in list(tensors.items())[:count] if k in ring]
        assert sum(len(t) for _, t in kept) <= 100
        for k, t in kept:
            found = ring.read(k)
            assert found is not None
            assert torch.equal(found, t)


def test_nothing_is_kept_without_a_budget_or_on_a_full_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    none = SpilledTensors(0)
    none.keep(b"a", torch.ones(3))
    assert b"a" not in none

    class Full:
        def seek(self, _place: int) -> None: ...

        def write(self, data: memoryview) -> int:
            raise OSError(28, "No space left on device")

    def full(**_options: Any) -> Full:
        return Full()

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    ring = SpilledTensors(1)
    for key in (b"a", b"b"):
        ring.keep(key, torch.ones(3))
        assert key not in ring
        assert ring.read(key) is None
