"""The devices that hot paths run on: one that is not there, and a GPU where there is one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from devices.shadow import shadow_device


@pytest.fixture(params=["shadow", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """A device other than the CPU."""
    if request.param == "shadow":
        with shadow_device() as shadow:
            yield shadow
        return
    if torch.cuda.is_available():
        yield torch.device("cuda", 0)
    elif torch.backends.mps.is_available():
        yield torch.device("mps")
    else:
        pytest.skip(f"torch {torch.__version__} sees no GPU on this machine")
