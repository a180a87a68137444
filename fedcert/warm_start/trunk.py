"""The trunk: what a federation trains together before anybody harvests an adapter.

To every linear module of a base model's layers it adds B A x, where A is fixed and B is
trained. An average of several B with one A is exactly the average of the updates B A, which
does not hold once both are trained (Sun et al., "Improving LoRA in Privacy-preserving
Federated Learning", ICLR 2024).

A follows from a seed by integers and products of single numbers, so it has the same bits on
every machine, and is never sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import linear

from fedcert.adapters.space import Target
from fedcert.errors import ModelError, ProtocolError
from fedcert.models.base import BaseModel
from fedcert.models.int8 import Int8Linear
from fedcert.randomness import keyed_generator

__all__ = ["Trunk", "TrunkTensors"]

TrunkTensors = dict[str, npt.NDArray[np.float32]]
"""B of each module by its name, float32 of shape ``(out, rank)``."""


@dataclass(frozen=True)
class Trunk:
    """Which modules of which base model are trained together, and how wide.

    Attributes
    ----------
    base_digest : str
        Of the base model that the trunk changes.
    rank : int
        Columns of every B.
    seed : int
        Fixes every A.
    targets : tuple of Target
        The linear modules, in the model's order.
    """

    base_digest: str
    rank: int
    seed: int
    targets: tuple[Target, ...]

    @classmethod
    def of(cls, base: BaseModel, *, rank: int, seed: int) -> Self:
        """Name all linear modules in a base model's layers.

        Parameters
        ----------
        base : BaseModel
            The frozen model.
        rank : int
            Columns of every B; a module with a smaller side is left as it is.
        seed : int
            Fixes every A.

        Returns
        -------
        Trunk
            The trunk, of which nothing is trained yet.

        Raises
        ------
        ModelError
            If the model has no such module, or weights that cannot be added to.
        """
        inside = f"{base.layout.layers}."
        targets = []
        for name, module in base.model.named_modules():
            if not name.startswith(inside) or not isinstance(module, nn.Linear):
                continue
            if isinstance(module, Int8Linear) or module.weight.dtype is not torch.float32:
                raise ModelError(
                    f"a warm start adds to weights in float32, and those of {name} are in "
                    "fewer bits; warm up the base model as it was before, with "
                    'quantization="none"'
                )
            if min(module.weight.shape) >= rank:
                targets.append(Target(name, module.in_features, module.out_features))
        if not targets:
            raise ModelError(
                f"the layers of {base.name!r} have no linear module of rank {rank} in float32 "
                "that a warm start could train"
            )
        return cls(base.digest, rank, seed, tuple(targets))

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Return the shape of every B by its module's name."""
        return {target.name: (target.out_features, self.rank) for target in self.targets}

    def zeros(self) -> TrunkTensors:
        """Return the trunk that leaves the base model as it is."""
        return {
            name: np.zeros(shape, dtype=np.float32) for name, shape in self.shapes().items()
        }

    def checked(self, arrays: Mapping[str, npt.NDArray[Any]]) -> TrunkTensors:
        """Return arrays that somebody sent if they can be a trunk, or the move of one.

        Raises
        ------
        ProtocolError
            If a shape or type differs, or a number is not finite.
        """
        if {name: array.shape for name, array in arrays.items()} != self.shapes():
            raise ProtocolError("its arrays do not have the trunk's shapes")
        if not all(
            array.dtype == np.float32 and np.isfinite(array).all() for array in arrays.values()
        ):
            raise ProtocolError("its trunk holds something else than finite numbers in float32")
        return dict(arrays)

    def frozen(self, target: Target) -> npt.NDArray[np.float32]:
        """Return A of a module, uniform as in PEFT, of shape ``(rank, in)``."""
        generator = keyed_generator("warm start", self.seed, target.name)
        # One multiplication of doubles in [0, 1) at a time: no fused one, no library's log.
        unit = generator.random((self.rank, target.in_features)) * 2.0
        unit -= 1.0
        scaled: npt.NDArray[np.float32] = (unit / np.sqrt(target.in_features)).astype(
            np.float32
        )
        return scaled

    @contextmanager
    def installed(self, base: BaseModel, tensors: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Let a base model compute with the trunk while the block runs.

        Parameters
        ----------
        base : BaseModel
            The trunk's; its weights are not written.
        tensors : Mapping[str, torch.Tensor]
            Every B, on the model's device; gradients flow to it.
        """
        with ExitStack() as stack:
            for target in self.targets:
                down = torch.from_numpy(self.frozen(target)).to(base.device)
                hook = _adding(down, tensors[target.name])
                module = base.model.get_submodule(target.name)
                stack.callback(module.register_forward_hook(hook).remove)
            yield

    def add_to(self, base: BaseModel, tensors: TrunkTensors) -> None:
        """Add the trunk to a base model's weights, in place.

        The product is a sum over columns of products of single numbers, all in double
        precision and rounded once: no matrix library takes part, so every machine gets the
        same bits, and with them the same digest.

        Parameters
        ----------
        base : BaseModel
            The trunk's.
        tensors : TrunkTensors
            Every B.
        """
        for target in self.targets:
            weight = cast(nn.Linear, base.model.get_submodule(target.name)).weight
            total = weight.detach().cpu().numpy().astype(np.float64)
            up = tensors[target.name].astype(np.float64)
            down = self.frozen(target).astype(np.float64)
            for column in range(self.rank):
                total += up[:, column, None] * down[None, column]
            with torch.no_grad():
                weight.copy_(torch.from_numpy(total.astype(np.float32)))

    def to_config(self) -> dict[str, Any]:
        """Return the trunk's identity, as a JSON object."""
        return {
            "base_digest": self.base_digest,
            "rank": self.rank,
            "seed": self.seed,
            "targets": [asdict(target) for target in self.targets],
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Rebuild a trunk from `to_config`.

        Raises
        ------
        ProtocolError
            If it is damaged.
        """
        try:
            return cls(
                base_digest=str(config["base_digest"]),
                rank=int(config["rank"]),
                seed=int(config["seed"]),
                targets=tuple(Target(**target) for target in config["targets"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"this is no trunk of a warm start: {error!r}") from error


def _adding(down: torch.Tensor, up: torch.Tensor) -> Any:
    def hook(_module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        return output + linear(linear(args[0], down), up)

    return hook
