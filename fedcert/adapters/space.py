"""The adapter space: shared coordinates in which all adapters of a federation live.

Raw LoRA factors cannot be pooled, since B A = (B G)(G^-1 A) for any invertible G. The
default coordinates are therefore those of LoRA-XS (Banaei et al., arXiv 2405.17604): for a
target weight W = U S V^T keep the leading r singular directions and train only the r x r
matrix R of Delta W = (U_r S_r) R V_r^T. All clients share U_r S_r and V_r, so equal
vectors mean equal adapters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fedcert.canonical import digest_json
from fedcert.errors import AdapterError, BundleError
from fedcert.models.base import BaseModel
from fedcert.models.encoder import LABEL_MOVES, TASK_HEAD, EncoderClassifier
from fedcert.models.layout import ATTENTION_PROJECTIONS

__all__ = ["AdapterSpace", "HeadTensor", "Target"]

# Part of the digest: change it when the meaning of a coordinate changes.
COORDINATES = "lora-xs/1"
SIGN_RULE = "largest |u| positive"


@dataclass(frozen=True)
class Target:
    """A linear module that is adapted: weight of shape ``(out_features, in_features)``."""

    name: str
    in_features: int
    out_features: int


@dataclass(frozen=True)
class HeadTensor:
    """A tensor of the head, trained in full."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class AdapterSpace:
    """Coordinates for adapters of one base model: a vector in R^d.

    A vector holds, in order, R of each target (row by row), then the head's tensors.

    Attributes
    ----------
    base_digest : str
        Weight digest of the base model.
    rank : int
        r, the rank of every low-rank update.
    head_module : str
        Name of the head (``modules_to_save`` in PEFT's words); empty if there is none, or it
        stands beside the encoder that PEFT adapts.
    targets : tuple of Target
        The adapted modules.
    head : tuple of HeadTensor
        The head's tensors.
    basis : Mapping[str, numpy.ndarray]
        Float32, per target: ``{name}.down`` = V_r^T of shape ``(r, in)`` and
        ``{name}.up`` = U_r S_r of shape ``(out, r)``. It ships with the space, because an
        SVD gives other last bits with other threads or instruction sets.
    """

    base_digest: str
    rank: int
    head_module: str
    targets: tuple[Target, ...]
    head: tuple[HeadTensor, ...]
    basis: Mapping[str, npt.NDArray[np.float32]] = field(repr=False, compare=False)

    @classmethod
    def of(
        cls,
        base: BaseModel,
        *,
        rank: int,
        last_layers: int = 1,
        projections: Sequence[str] = ATTENTION_PROJECTIONS,
    ) -> AdapterSpace:
        """Build the space for a base model.

        Parameters
        ----------
        base : BaseModel
            The frozen model.
        rank : int
            r, at most the smaller side of every target.
        last_layers : int (default: 1)
            Adapt this many layers, counted from the top.
        projections : sequence of str
            Which linear modules of a layer to adapt, by their own name.

        Returns
        -------
        AdapterSpace
            The space, with a basis from the base model's weights.
        """
        names = base.layout.targets(
            base.model, last=last_layers, projections=tuple(projections)
        )
        targets, basis = [], {}
        for name in names:
            weight = cast(nn.Linear, base.model.get_submodule(name)).weight
            if rank < 1 or rank > min(weight.shape):
                raise AdapterError(
                    f"rank {rank} does not fit {name}, a {tuple(weight.shape)} matrix"
                )
            targets.append(Target(name, weight.shape[1], weight.shape[0]))
            basis[f"{name}.up"], basis[f"{name}.down"] = _leading_directions(weight, rank)
        head: tuple[HeadTensor, ...] = ()
        beside = isinstance(base.model, EncoderClassifier)
        place = TASK_HEAD if beside else base.layout.head
        if place:  # a label scorer has none
            head = tuple(
                HeadTensor(f"{place}.{name}", tuple(parameter.shape))
                for name, parameter in base.model.get_submodule(place).named_parameters()
            )
        return cls(base.digest, rank, base.layout.head, tuple(targets), head, basis)

    @property
    def dimension(self) -> int:
        """d, the number of coordinates."""
        return len(self.targets) * self.rank**2 + sum(prod(t.shape) for t in self.head)

    @property
    def digest(self) -> str:
        """Identity of the space: what fixes its meaning, never recomputed factors."""
        return digest_json(self.to_config())

    @property
    def head_beside(self) -> bool:
        """Whether the head is no part of the model that PEFT adapts, but stands beside it."""
        return bool(self.head) and not self.head_module

    @property
    def names_head(self) -> bool:
        """Whether logits follow from the labels' names, and the head holds a scale alone."""
        return [tensor.name for tensor in self.head] == [f"{TASK_HEAD}.log_scale"]

    def holding(self, coordinates: int, *, labels: int) -> AdapterSpace:
        """Return the space that vectors of some length are in.

        Where logits follow from the labels' names, a client may move its labels' embeddings.
        How far stands behind an adapter's coordinates, label by label, and concerns nobody
        with other labels: no prior has it, and no digest of the space.

        Parameters
        ----------
        coordinates : int
            The vectors' length.
        labels : int
            K, how many labels the client has.

        Returns
        -------
        AdapterSpace
            This space, or the same with the tensor of the moves in its head.

        Raises
        ------
        AdapterError
            If such vectors are in neither.
        """
        more = coordinates - self.dimension
        if more == 0:
            return self
        if more < 0 or labels < 1 or more % labels or not self.names_head:
            raise AdapterError(
                f"a vector of {coordinates} numbers is not in this space of {self.dimension}"
            )
        moves = HeadTensor(LABEL_MOVES, (labels, more // labels))
        return replace(self, head=(*self.head, moves))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name the tensors of an adapter in these coordinates, with their shapes."""
        cores = {f"{target.name}.R": (self.rank, self.rank) for target in self.targets}
        return cores | {tensor.name: tensor.shape for tensor in self.head}

    def split(self, vectors: torch.Tensor) -> dict[str, torch.Tensor]:
        """View vectors of shape ``(..., d)`` as the named tensors of `shapes`."""
        if vectors.shape[-1] != self.dimension:
            raise AdapterError(
                f"a vector of {vectors.shape[-1]} numbers is not in this space of "
                f"{self.dimension}"
            )
        parts, start = {}, 0
        for name, shape in self.shapes().items():
            size = prod(shape)
            parts[name] = vectors[..., start : start + size].unflatten(-1, shape)  # type: ignore[no-untyped-call]
            start += size
        return parts

    def to_config(self) -> dict[str, Any]:
        """Return what identifies the space, as a JSON value."""
        return {
            "coordinates": COORDINATES,
            "sign_rule": SIGN_RULE,
            "base_digest": self.base_digest,
            "rank": self.rank,
            "head_module": self.head_module,
            "targets": [
                {
                    "name": t.name,
                    "in_features": t.in_features,
                    "out_features": t.out_features,
                }
                for t in self.targets
            ],
            "head": [{"name": t.name, "shape": list(t.shape)} for t in self.head],
        }

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], basis: Mapping[str, npt.NDArray[np.float32]]
    ) -> AdapterSpace:
        """Rebuild a space from `to_config` and its basis.

        Raises
        ------
        BundleError
            If the space is of another version, or the basis does not fit it.
        """
        if config.get("coordinates") != COORDINATES or config.get("sign_rule") != SIGN_RULE:
            raise BundleError(
                f"adapter coordinates {config.get('coordinates')!r} are not those of this "
                f"version ({COORDINATES!r}); use the fedcert version that made the bundle"
            )
        try:
            space = cls(
                base_digest=config["base_digest"],
                rank=config["rank"],
                head_module=config["head_module"],
                targets=tuple(Target(**target) for target in config["targets"]),
                head=tuple(HeadTensor(t["name"], tuple(t["shape"])) for t in config["head"]),
                basis=basis,
            )
        except (KeyError, TypeError) as error:
            raise BundleError(f"the adapter space is damaged: {error}") from error
        space.check_basis()
        return space

    def check_basis(self) -> None:
        """Raise `BundleError` unless the basis has exactly the arrays the space needs."""
        expected = {}
        for target in self.targets:
            expected[f"{target.name}.up"] = (target.out_features, self.rank)
            expected[f"{target.name}.down"] = (self.rank, target.in_features)
        got = {name: array.shape for name, array in self.basis.items()}
        if got != expected:
            wrong = sorted(set(got.items()) ^ set(expected.items()))[0]
            raise BundleError(f"the basis of the adapter space does not fit at {wrong[0]!r}")


def _leading_directions(
    weight: torch.Tensor, rank: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return U_r S_r and V_r^T, each direction's sign fixed by `SIGN_RULE`."""
    U, S, Vh = torch.linalg.svd(weight.detach().cpu().double(), full_matrices=False)
    U, S, Vh = U[:, :rank], S[:rank], Vh[:rank]
    peak = U.abs().argmax(dim=0)
    sign = U.gather(0, peak[None]).sign()[0]
    up = (U * sign * S).float().numpy()
    down = (Vh * sign[:, None]).float().numpy()
    return up, np.ascontiguousarray(down)
