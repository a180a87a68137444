"""What is signed is computed in float32, whatever a program asked torch for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fedcert.devices import exact_float32


def _switches() -> list[Any]:
    backends: Any = torch.backends
    reduced = backends.cuda.matmul.allow_bf16_reduced_precision_reduction
    conv = getattr(backends.cudnn, "conv", None)
    precision = getattr(conv, "fp32_precision", None) or backends.cudnn.allow_tf32
    return [torch.get_float32_matmul_precision(), reduced, precision]


@pytest.mark.parametrize("asked", ["highest", "high", "medium"])
def test_float32_is_float32_and_the_switches_come_back(asked: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(asked)
    try:
        switches = _switches()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with exact_float32():
                assert torch.get_float32_matmul_precision() == "highest"
                assert not torch.backends.cudnn.allow_tf32
                assert not torch.backends.cuda.matmul.allow_tf32
                assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.float32
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.bfloat16
        with pytest.raises(ZeroDivisionError), exact_float32():
            _ = 1 / 0
        assert _switches() == switches
    finally:
        torch.set_float32_matmul_precision(before)
