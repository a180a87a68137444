"""How many processes of virtual clients share a GPU: as many as its memory takes."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from fedcert.errors import SettingsError

__all__ = ["gpu_share", "needed_mib", "weights_mib"]

MIB = 2**20
# What CUDA and its libraries take in each process, and what activations may.
_CONTEXT_MIB, _ACTIVATIONS_MIB = 600.0, 1024.0


def weights_mib(folder: Path) -> float:
    """Return what the weights in a folder take in float32, MiB; 0 for a hub id."""
    from safetensors import safe_open

    numbers = 0
    for path in sorted(folder.glob("*.safetensors")) if folder.is_dir() else []:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118  (it is no dictionary)
                numbers += math.prod(file.get_slice(name).get_shape())
    return 4 * numbers / MIB


def needed_mib(weights: float) -> float:
    """Return what one process takes of a GPU, MiB.

    The base model, whose weights the count of errors shares, activations, and CUDA itself.
    """
    return weights + _ACTIVATIONS_MIB + _CONTEXT_MIB


def gpu_share(name: str, device: torch.device, asked: float, *, weights: float) -> float:
    """Return the share of a GPU that a process of virtual clients asks Ray for.

    Parameters
    ----------
    name : str
        The device as the settings name it.
    device : torch.device
        The device that it is here.
    asked : float
        The setting ``client.gpus``; 0 for the smallest share that suffices.
    weights : float
        What the base model takes, MiB.

    Returns
    -------
    float
        0 to 1; 0 if it is no GPU of CUDA.

    Raises
    ------
    SettingsError
        If the model does not fit, or the settings name one GPU of several.
    """
    if device.type != "cuda":
        return 0.0
    if ":" in name:
        raise SettingsError(
            f"setting 'device': Ray gives each process a GPU of its own choice, so {name!r} "
            f'says nothing; give device = "cuda" and CUDA_VISIBLE_DEVICES={device.index}, or '
            "--runner inprocess"
        )
    total = torch.cuda.get_device_properties(device).total_memory / MIB
    needed = needed_mib(weights)
    share = asked or math.ceil(100 * needed / total) / 100
    if share > 1 or share * total < needed:
        raise SettingsError(
            f"setting 'client.gpus': a process takes {needed:.0f} MiB of a GPU, "
            f"{weights:.0f} MiB of weights and {needed - weights:.0f} MiB beside them, and "
            f"{min(share, 1):g} of {total:.0f} MiB is {min(share, 1) * total:.0f} MiB; "
            + ("raise it, or take" if needed <= total else "take")
            + ' a smaller base model, or device = "cpu"'
        )
    return share
