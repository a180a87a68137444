"""Which device a name stands for on a machine, and what is said where it lacks one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fedcert.devices import check_device, describe_device, resolve_device
from fedcert.errors import SettingsError
from fedcert.settings import RunSettings


def _machine(patch: pytest.MonkeyPatch, *, gpus: int = 0, mps: bool = False) -> None:
    patch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    patch.setattr(torch.cuda, "device_count", lambda: gpus)
    patch.setattr(torch.cuda, "get_device_name", lambda _device: "Some GPU")
    patch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda _device: SimpleNamespace(total_memory=80 * 2**30),
    )
    patch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("gpus", "mps", "name", "expected"),
    [
        (2, False, "auto", "cuda:0"),
        (1, True, "auto", "cuda:0"),
        (0, True, "auto", "mps"),
        (0, False, "auto", "cpu"),
        (2, False, "cuda", "cuda:0"),
        (2, False, "cuda:1", "cuda:1"),
        (2, True, "cpu", "cpu"),
        (0, True, "mps", "mps"),
    ],
)
def test_a_name_stands_for_what_is_there(
    gpus: int, mps: bool, name: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _machine(monkeypatch, gpus=gpus, mps=mps)
    assert resolve_device(name) == torch.device(expected)


@pytest.mark.parametrize(
    ("gpus", "name", "words"),
    [
        (0, "cuda", "'cuda' is not here"),
        (0, "cuda:1", "choose cpu or auto"),
        (2, "cuda:2", "torch sees 2 GPUs, from cuda:0 on"),
        (2, "mps", "Apple silicon"),
        (2, "gpu", "choose auto, cpu, cuda, cuda:1"),
        (2, "cuda:-1", "there is no device 'cuda:-1'"),
        (2, "CPU", "there is no device 'CPU'"),
        (2, "", "there is no device ''"),
    ],
)
def test_what_is_not_there_is_refused(
    gpus: int, name: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _machine(monkeypatch, gpus=gpus)
    with pytest.raises(SettingsError, match=words):
        resolve_device(name)


def test_a_name_may_be_that_of_another_machine() -> None:
    assert check_device("cuda:7") == "cuda:7"
    assert RunSettings.from_flat({"device": "mps"}).device == "mps"
    assert RunSettings().device == "auto"
    with pytest.raises(SettingsError, match="setting 'device': there is no device 'tpu'"):
        RunSettings.from_mapping({"device": "tpu"})


def test_a_log_says_which_gpu_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, gpus=1)
    assert describe_device(resolve_device()) == "cuda:0 (Some GPU, 80 GiB)"
    assert describe_device(torch.device("cpu")) == "cpu"
