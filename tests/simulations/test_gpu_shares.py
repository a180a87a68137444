"""Processes of virtual clients share a GPU as far as its memory goes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tiny_models import Family

from fedcert.errors import SettingsError
from fedcert.simulations.runners.gpu_shares import gpu_share, needed_mib, weights_mib

GPU = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    of = SimpleNamespace(total_memory=16 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: of)


def test_weights_are_counted_from_the_folder(vit: Family) -> None:
    held = sum(tensor.numel() for tensor in vit.base.model.state_dict().values())
    assert weights_mib(vit.folder) == pytest.approx(4 * held / 2**20)
    assert weights_mib(vit.folder / "hub-id") == 0


@pytest.mark.parametrize("weights", [0.0, 90.0, 1300.0])
def test_the_smallest_share_suffices(weights: float) -> None:
    share = gpu_share("auto", GPU, 0.0, weights=weights)
    assert needed_mib(weights) <= share * 16 * 1024 < needed_mib(weights) + 200
    assert gpu_share("cuda", GPU, 0.5, weights=weights) == 0.5


def test_without_a_gpu_none_is_asked_for() -> None:
    for kind in ("cpu", "mps"):
        assert gpu_share(kind, torch.device(kind), 0.5, weights=90.0) == 0


def test_a_model_that_does_not_fit_is_refused_before_anything_starts() -> None:
    with pytest.raises(SettingsError, match=r"takes 2924 MiB of a GPU.*raise it"):
        gpu_share("cuda", GPU, 0.1, weights=1300.0)
    with pytest.raises(SettingsError, match='device = "cpu"'):
        gpu_share("auto", GPU, 0.0, weights=16000.0)


def test_one_gpu_of_several_is_not_rays_to_choose() -> None:
    with pytest.raises(SettingsError, match="CUDA_VISIBLE_DEVICES=1"):
        gpu_share("cuda:1", torch.device("cuda", 1), 0.0, weights=90.0)
