"""The number of torch threads is pinned for a block and restored after it."""

from __future__ import annotations

import pytest
import torch

from fedcert.threads import torch_threads


def test_the_former_number_comes_back_even_after_an_error() -> None:
    before, inside = torch.get_num_threads(), []

    def work() -> None:
        with torch_threads(before + 1):
            inside.append(torch.get_num_threads())
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        work()
    assert inside == [before + 1]
    assert torch.get_num_threads() == before
