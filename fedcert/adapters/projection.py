"""Bringing ordinary LoRA adapters of any rank and alpha into the adapter space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.adapters.head_file import HEAD_FILE
from fedcert.adapters.space import AdapterSpace
from fedcert.errors import AdapterError
from fedcert.models.encoder import TASK_HEAD

__all__ = ["LoraUpdate", "Projection", "project"]

# An adapter that was trained elsewhere says nothing of it: then the base model's scale stays.
_LOG_SCALE = f"{TASK_HEAD}.log_scale"


@dataclass(frozen=True)
class LoraUpdate:
    """An ordinary LoRA adapter, factors and head.

    Attributes
    ----------
    factors : Mapping[str, tuple]
        Per module: A of shape ``(rank, in)``, B of shape ``(out, rank)`` and the scaling
        (alpha / rank), so that Delta W = scaling * B A. Ranks may differ.
    head : Mapping[str, numpy.ndarray]
        The head's tensors by full name.
    """

    factors: Mapping[str, tuple[npt.NDArray[Any], npt.NDArray[Any], float]]
    head: Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Projection:
    """An adapter in the space, and what the space could not hold.

    Attributes
    ----------
    vector : numpy.ndarray
        Float64, shape ``(d,)``.
    residual : float
        ||Delta W - projected||_F / ||Delta W||_F over all modules together; 0 if nothing
        was lost.
    residuals : Mapping[str, float]
        The same per module; 1 for a module that the space does not adapt.
    """

    vector: npt.NDArray[np.float64]
    residual: float
    residuals: Mapping[str, float]

    @property
    def lost(self) -> float:
        """Share of the update's squared norm that the space could not hold, from 0 to 1."""
        return min(self.residual**2, 1.0)


def project(space: AdapterSpace, update: LoraUpdate) -> Projection:
    """Project a LoRA adapter orthogonally: R = S_r^+ U_r^T (Delta W) V_r.

    A module of the space that the adapter leaves alone gets R = 0.

    Raises
    ------
    AdapterError
        If a factor or a head tensor has the wrong shape, or the head is missing.
    """
    parts: dict[str, npt.NDArray[np.float64]] = {}
    lost, total, residuals = 0.0, 0.0, {}
    known = {target.name: target for target in space.targets}
    for target in space.targets:
        parts[f"{target.name}.R"] = np.zeros((space.rank, space.rank))
    for name, (A, B, scaling) in update.factors.items():
        delta = _delta(name, A, B, scaling)
        kept = np.zeros_like(delta)
        if name in known:
            expected = (known[name].out_features, known[name].in_features)
            if delta.shape != expected:
                raise AdapterError(
                    f"the update of {name!r} has shape {delta.shape}; it must be {expected}"
                )
            core, kept = _into_basis(space, name, delta)
            parts[f"{name}.R"] = core
        squared, missing = float(np.sum(delta**2)), float(np.sum((delta - kept) ** 2))
        residuals[name] = float(np.sqrt(missing / squared)) if squared > 0 else 0.0
        lost, total = lost + missing, total + squared
    for tensor in space.head:
        if tensor.name not in update.head:
            if tensor.name == _LOG_SCALE:
                parts[tensor.name] = np.zeros(tensor.shape)
                continue
            raise AdapterError(
                f"the adapter has no {tensor.name!r}; "
                + (
                    f"train it with modules_to_save=[{space.head_module!r}]"
                    if space.head_module
                    else f"its folder must hold it in {HEAD_FILE}"
                )
            )
        values = np.asarray(update.head[tensor.name], dtype=np.float64)
        if values.shape != tensor.shape:
            raise AdapterError(
                f"the adapter's {tensor.name!r} has shape {values.shape}; "
                f"it must be {tensor.shape}"
            )
        parts[tensor.name] = values
    vector = np.concatenate([parts[name].ravel() for name in space.shapes()])
    if not np.isfinite(vector).all():
        raise AdapterError("the adapter holds NaN or an infinity")
    return Projection(vector, float(np.sqrt(lost / total)) if total > 0 else 0.0, residuals)


def _delta(
    name: str, A: npt.NDArray[Any], B: npt.NDArray[Any], scaling: float
) -> npt.NDArray[np.float64]:
    if A.ndim != 2 or B.ndim != 2 or A.shape[0] != B.shape[1]:
        raise AdapterError(
            f"the factors of {name!r} have shapes {A.shape} and {B.shape}; "
            "A must be (rank, in) and B (out, rank)"
        )
    return scaling * (B.astype(np.float64) @ A.astype(np.float64))


def _into_basis(
    space: AdapterSpace, name: str, delta: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    up = space.basis[f"{name}.up"].astype(np.float64)
    down = space.basis[f"{name}.down"].astype(np.float64)
    core = np.linalg.pinv(up) @ delta @ down.T
    return core, up @ core @ down
