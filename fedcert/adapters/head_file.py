"""The head of an exported adapter where PEFT's folder has no place for it: beside the encoder.

``head.safetensors`` holds what an adapter learned of its head (``log_scale``, or ``weight`` and
``bias``) and, for a head of names, ``label_embeddings`` of shape ``(K, width)``, in unit
length, and names and scale as metadata. Then logits are ``scale * exp(log_scale) * cosine``,
and those of a trained head ``weight @ (scale * embedding) + bias``, with scale 1 where none is
named. An adapter that moves its labels has ``label_moves`` of the same shape, which are added
to the embeddings before the product with the input's unit embedding, and not brought to length
1. fedcert makes the label embeddings again from the base model, and refuses others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fedcert.errors import AdapterError
from fedcert.models.base import BaseModel
from fedcert.models.encoder import TASK_HEAD, EncoderClassifier
from fedcert.models.heads import NamesHead

__all__ = ["HEAD_FILE", "HeadFile", "check_label_embeddings", "read_head", "write_head"]

HEAD_FILE = "head.safetensors"
_EMBEDDINGS = "label_embeddings"
# Largest difference between label embeddings of two machines, by type of the base model.
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}


@dataclass(frozen=True)
class HeadFile:
    """What a head file holds.

    Attributes
    ----------
    tensors : Mapping[str, numpy.ndarray]
        The adapter's, by their full names in the adapter space.
    label_embeddings : numpy.ndarray or None
        Shape ``(K, width)``, for a head of names that was exported with labels.
    names : tuple of str or None
        The labels by index, where the file names them.
    scale : float or None
        What cosines or embeddings are multiplied with, where the file says so.
    """

    tensors: Mapping[str, npt.NDArray[Any]]
    label_embeddings: npt.NDArray[Any] | None
    names: tuple[str, ...] | None
    scale: float | None


def write_head(
    folder: Path, tensors: Mapping[str, npt.NDArray[np.float32]], base: BaseModel | None
) -> None:
    """Write the head's tensors, and the labels that a base model has.

    Parameters
    ----------
    folder : Path
        An adapter's folder.
    tensors : Mapping[str, numpy.ndarray]
        The adapter's, by their full names in the adapter space.
    base : BaseModel, optional
        Where the labels are.
    """
    stored = {name.removeprefix(f"{TASK_HEAD}."): array for name, array in tensors.items()}
    about = {"format": "fedcert.head/1"}
    if base is not None and isinstance(base.model, EncoderClassifier) and base.num_labels:
        about["names"] = json.dumps(list(base.label_names))
        head = base.model.task_head
        if isinstance(head, NamesHead):
            stored[_EMBEDDINGS] = head.get_buffer(_EMBEDDINGS).cpu().numpy()
        scale = getattr(head, "scale", None)
        if scale is not None:
            about["scale"] = repr(scale)
    save_file(stored, folder / HEAD_FILE, metadata=about)


def read_head(folder: Path) -> HeadFile | None:
    """Read a head file, or return None where there is none.

    Raises
    ------
    AdapterError
        If it is damaged.
    """
    path = folder / HEAD_FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, "np") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        names = json.loads(about["names"]) if "names" in about else None
        if names is not None and not all(isinstance(name, str) for name in names):
            raise ValueError("a label's name is no text")
        scale = float(about["scale"]) if "scale" in about else None
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise AdapterError(f"{path}: damaged ({error})") from error
    embeddings = tensors.pop(_EMBEDDINGS, None)
    return HeadFile(
        {f"{TASK_HEAD}.{name}": array for name, array in tensors.items()},
        embeddings,
        None if names is None else tuple(names),
        scale,
    )


def check_label_embeddings(folder: Path, stored: HeadFile, base: BaseModel) -> None:
    """Raise `AdapterError` unless stored labels, embeddings, and scale are a base model's.

    Parameters
    ----------
    folder : Path
        The adapter folder, for the message.
    stored : HeadFile
        The head as the folder holds it.
    base : BaseModel
        The base model with its labels.
    """
    if stored.names is not None and stored.names != base.label_names:
        raise AdapterError(
            f"{folder}: the adapter was exported for the labels {_listed(stored.names)}, and "
            f"not for {_listed(base.label_names)}"
        )
    head = getattr(base.model, TASK_HEAD)
    if stored.scale not in {None, head.scale}:
        raise AdapterError(
            f"{folder / HEAD_FILE}: the scale is {stored.scale:g}, and that of the base model "
            f"{head.scale or 1:g}; export the adapter again"
        )
    if stored.label_embeddings is None or not isinstance(head, NamesHead):
        return
    own = head.get_buffer(_EMBEDDINGS).cpu().numpy()
    same = stored.label_embeddings.shape == own.shape
    difference = np.abs(stored.label_embeddings - own).max() if same else np.inf
    dtype = next(base.model.parameters()).dtype
    if not difference <= _TOLERANCE.get(dtype, 1e-4):
        raise AdapterError(
            f"{folder / HEAD_FILE}: the label embeddings are not those that the base model "
            "gives the labels' names; export the adapter again"
        )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
