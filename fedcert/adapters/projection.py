"""Bringing ordinary LoRA adapters of any rank and alpha into the adapter space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.adapters.head_file import HEAD_FILE
from fedcert.adapters.space import TIED, AdapterSpace
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

    A module of the space that the adapter leaves alone gets R = 0. Where modules are tied, the
    numbers they share give the R whose Delta W are nearest to these, all modules together.

    Raises
    ------
    AdapterError
        If a factor or a head tensor has the wrong shape, or the head is missing.
    """
    parts: dict[str, npt.NDArray[np.float64]] = {}
    squares: dict[str, float] = {}
    missing: dict[str, float] = {}
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
        squares[name] = float(np.sum(delta**2))
        missing[name] = float(np.sum((delta - kept) ** 2))
    if space.tied:
        own = {name: parts.pop(f"{name}.R") for name in known}
        parts[TIED], gaps = _tied(space, own)
        for name, gap in gaps.items():
            squares.setdefault(name, 0.0)
            missing[name] = missing.get(name, 0.0) + gap
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
    residuals = {name: _share(missing[name], squares[name]) for name in update.factors}
    return Projection(vector, _share(sum(missing.values()), sum(squares.values())), residuals)


def _share(missing: float, squared: float) -> float:
    return float(np.sqrt(missing / squared)) if squared > 0 else 0.0


def _tied(
    space: AdapterSpace, cores: Mapping[str, npt.NDArray[np.float64]]
) -> tuple[npt.NDArray[np.float64], dict[str, float]]:
    """Return the shared numbers nearest to an R of each target, and what each then lacks.

    U_r and V_r have orthonormal columns, so the distance of two Delta W is that of S_r R.
    """
    strengths = [np.linalg.norm(space.basis[f"{name}.up"], axis=0) for name in cores]
    weights = np.repeat(np.concatenate(strengths).astype(np.float64), space.rank)
    wanted = weights * np.concatenate([core.ravel() for core in cores.values()])
    columns = weights[:, None] * space.patterns().numpy().T
    shared, *_ = np.linalg.lstsq(columns, wanted, rcond=None)
    gaps = ((wanted - columns @ shared) ** 2).reshape(len(cores), -1).sum(axis=1)
    return shared, dict(zip(cores, gaps.tolist(), strict=True))


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
