"""The adapter space: shared coordinates in which all adapters of a federation live.

Raw LoRA factors cannot be pooled, since B A = (B G)(G^-1 A) for any invertible G. The
default coordinates are therefore those of LoRA-XS (Banaei et al., arXiv 2405.17604): for a
target weight W = U S V^T keep the leading r singular directions and train only the r x r
matrix R of Delta W = (U_r S_r) R V_r^T. All clients share U_r S_r and V_r, so equal
vectors mean equal adapters. With `tied`, the modules share a few numbers and have no R of their
own (`fedcert.adapters.tying`).
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

from fedcert.adapters.tying import patterns
from fedcert.canonical import digest_json
from fedcert.errors import AdapterError, BundleError
from fedcert.models.base import BaseModel
from fedcert.models.encoder import LABEL_MOVES, TASK_HEAD, EncoderClassifier
from fedcert.models.layout import ATTENTION_PROJECTIONS

__all__ = ["TIED", "AdapterSpace", "HeadTensor", "Target"]

# Part of the digest: change it when the meaning of a coordinate changes.
COORDINATES = "lora-xs/1"
# A name of its own, so that a version that knows nothing of it refuses and does not misread.
TIED_COORDINATES = "lora-xs-tied/1"
SIGN_RULE = "largest |u| positive"
TIED = "tied"
"""Name of what tied modules share; those of other tensors have a dot."""


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

    A vector holds, in order, R of each target (row by row) or what they share, then the head's
    tensors.

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
    tied : int (default: 0)
        u, how many numbers all targets share in the place of an R of each; 0: none.
    """

    base_digest: str
    rank: int
    head_module: str
    targets: tuple[Target, ...]
    head: tuple[HeadTensor, ...]
    basis: Mapping[str, npt.NDArray[np.float32]] = field(repr=False, compare=False)
    tied: int = 0

    @classmethod
    def of(
        cls,
        base: BaseModel,
        *,
        rank: int,
        last_layers: int = 1,
        projections: Sequence[str] = ATTENTION_PROJECTIONS,
        tied: int = 0,
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
        tied : int (default: 0)
            How many numbers the modules share in the place of an R of each; 0: none.

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
        space = cls(base.digest, rank, base.layout.head, tuple(targets), head, basis, tied)
        if not space.fits_tied:
            raise AdapterError(
                f"adapter.tied = {tied} saves nothing: at rank {rank} the {len(targets)} "
                f"adapted modules have {space.untied.layer_numbers} numbers of their own; "
                "choose fewer, or 0 to tie nothing"
            )
        return space

    @property
    def dimension(self) -> int:
        """d, the number of coordinates."""
        return self.layer_numbers + sum(prod(t.shape) for t in self.head)

    @property
    def layer_numbers(self) -> int:
        """How many coordinates change the layers; they stand before those of the head."""
        return self.tied or len(self.targets) * self.rank**2

    @property
    def untied(self) -> AdapterSpace:
        """The same space in which each target has an R of its own."""
        return replace(self, tied=0) if self.tied else self

    @property
    def fits_tied(self) -> bool:
        """Whether what targets share is less than what they would have of their own."""
        return not self.tied or 0 < self.tied < self.untied.layer_numbers

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
        layers: dict[str, tuple[int, ...]] = {TIED: (self.tied,)}
        if not self.tied:
            layers = {f"{target.name}.R": (self.rank, self.rank) for target in self.targets}
        return layers | {tensor.name: tensor.shape for tensor in self.head}

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

    def patterns(
        self, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64
    ) -> torch.Tensor:
        """Return the map from what targets share to all R, ``(tied, coordinates of R)``."""
        return patterns(
            tuple(t.name for t in self.targets), self.rank, self.tied, device, dtype
        )

    def untie(self, vectors: torch.Tensor) -> torch.Tensor:
        """Map vectors of shape ``(..., d)`` linearly to those of `untied`; gradients flow."""
        if not self.tied:
            return vectors
        shared, head = vectors[..., : self.tied], vectors[..., self.tied :]
        cores = shared @ self.patterns(device=vectors.device, dtype=vectors.dtype)
        return torch.cat([cores, head], dim=-1)

    def parts(self, vectors: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return what a model runs with: R of each target and the head, of ``(..., d)``."""
        return self.untied.split(self.untie(vectors))

    def to_config(self) -> dict[str, Any]:
        """Return what identifies the space, as a JSON value."""
        return {
            **({"tied": self.tied} if self.tied else {}),
            "coordinates": TIED_COORDINATES if self.tied else COORDINATES,
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
        known = TIED_COORDINATES if "tied" in config else COORDINATES
        if config.get("coordinates") != known or config.get("sign_rule") != SIGN_RULE:
            raise BundleError(
                f"adapter coordinates {config.get('coordinates')!r} are not those of this "
                f"version ({known!r}); use the fedcert version that made the bundle"
            )
        try:
            space = cls(
                base_digest=config["base_digest"],
                rank=config["rank"],
                head_module=config["head_module"],
                targets=tuple(Target(**target) for target in config["targets"]),
                head=tuple(HeadTensor(t["name"], tuple(t["shape"])) for t in config["head"]),
                basis=basis,
                tied=config.get("tied", 0),
            )
        except (KeyError, TypeError) as error:
            raise BundleError(f"the adapter space is damaged: {error}") from error
        sound = type(space.tied) is int and space.fits_tied
        if not sound or ("tied" in config) != bool(space.tied):
            raise BundleError(f"the adapter space is damaged: tied is {space.tied!r}")
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
