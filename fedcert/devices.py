"""Where tensors are computed: the processor, or an accelerator that is there.

What a certificate signs does not say where it was computed, and must not depend on it: seeds
are drawn on the processor, and errors are counted in full float32 precision.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from fedcert.errors import SettingsError

__all__ = [
    "AUTO",
    "check_device",
    "describe_device",
    "exact_float32",
    "moved",
    "resolve_device",
    "spare_bytes",
    "takes_float64",
]

AUTO = "auto"
"""CUDA if there is any, then MPS, then the processor."""

_NAMES = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")
_REDUCED = (
    "allow_bf16_reduced_precision_reduction",
    "allow_fp16_reduced_precision_reduction",
)
# Settings of torch 2.9 and later, which the older switches set along.
_NEWER = ("cuda.matmul", "mkldnn.matmul", "mkldnn.conv", "cudnn.conv", "cudnn.rnn")
# Activations beyond this make nothing faster.
_MOST_SPARE = 2**30


def check_device(name: str) -> str:
    """Return the name of a device if there may be one of it on some machine.

    Raises
    ------
    SettingsError
        If it is no name of a device.
    """
    if not _NAMES.fullmatch(name):
        raise SettingsError(
            f"there is no device {name!r}; choose auto, cpu, cuda, cuda:1 (the second GPU, and "
            "so on), or mps"
        )
    return name


def resolve_device(name: str = AUTO) -> torch.device:
    """Return the device of a name, on this machine.

    Parameters
    ----------
    name : str (default: "auto")
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"mps"``.

    Returns
    -------
    torch.device
        With its index, where it is a GPU.

    Raises
    ------
    SettingsError
        If it is no device's name, or this machine lacks it.
    """
    kind, _, index = check_device(name).partition(":")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == AUTO:
        kind = "cuda" if count else "mps" if torch.backends.mps.is_available() else "cpu"
    if kind == "cuda":
        number = int(index or 0)
        if number >= count:
            raise SettingsError(f"the device {name!r} is not here: {_lacking_cuda(count)}")
        return torch.device("cuda", number)
    if kind == "mps" and not torch.backends.mps.is_available():
        raise SettingsError(
            f"the device {name!r} is not here: it takes macOS on a machine with Apple silicon; "
            "choose cpu or auto"
        )
    return torch.device(kind)


def _lacking_cuda(count: int) -> str:
    if count:
        return f"torch sees {count} GPU{'s' * (count > 1)}, from cuda:0 on; choose one of these"
    if torch.version.cuda is None and torch.version.hip is None:
        return (
            f"this torch ({torch.__version__}) was built without CUDA; install a build with "
            "it, or choose cpu or auto"
        )
    return "torch sees no GPU (driver, or CUDA_VISIBLE_DEVICES?); choose cpu or auto"


def describe_device(device: torch.device) -> str:
    """Name a device for whoever reads a log."""
    if device.type == "cuda" and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(device).total_memory
        return f"{device} ({torch.cuda.get_device_name(device)}, {total / 2**30:.0f} GiB)"
    return str(device)


def takes_float64(device: torch.device) -> bool:
    """Return whether a device computes in float64 at all."""
    return device.type != "mps"


def moved(tensors: Mapping[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """Return named tensors on a device, those that are there already as they are."""
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def spare_bytes(device: torch.device) -> int | None:
    """Return how much of an accelerator's free memory activations may take; None on the CPU.

    A quarter of what is free, so that several processes can share a GPU.
    """
    if device.type == "cpu":
        return None
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 4 * _MOST_SPARE
    return min(_MOST_SPARE, free // 4)


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute float32 in float32 while the block runs, on every device.

    GPUs may multiply float32 in TF32, and processors in bfloat16, if a program asks for it, and
    convolutions are in TF32 unless it asks otherwise; an enclosing autocast ends here too.

    Yields
    ------
    None
        Nothing; torch's switches are as they were when the block ends.
    """
    backends: Any = torch.backends
    newer = [(part, part.fp32_precision) for part in _newer_parts()]
    precision = torch.get_float32_matmul_precision()
    conv = None if newer else backends.cudnn.allow_tf32
    reduced = {name: getattr(backends.cuda.matmul, name) for name in _REDUCED}
    with ExitStack() as stack:
        for kind in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(kind, enabled=False))
        try:
            torch.set_float32_matmul_precision("highest")
            backends.cudnn.allow_tf32 = False
            for part, _ in newer:
                part.fp32_precision = "ieee"
            for name in _REDUCED:
                setattr(backends.cuda.matmul, name, False)
            yield
        finally:
            torch.set_float32_matmul_precision(precision)
            if conv is not None:
                backends.cudnn.allow_tf32 = conv
            for part, before in newer:
                part.fp32_precision = before
            for name, before in reduced.items():
                setattr(backends.cuda.matmul, name, before)


def _newer_parts() -> list[Any]:
    """Return torch's switches for one operation each, where this torch has them."""
    parts = []
    for path in _NEWER:
        part: Any = torch.backends
        for name in path.split("."):
            part = getattr(part, name, None)
        if hasattr(part, "fp32_precision"):
            parts.append(part)
    return parts
