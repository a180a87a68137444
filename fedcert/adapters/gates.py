"""Gates: which parts of a client's change to a shared adapter are switched on.

In LoRA's update B diag(g) A a gate per rank belongs to one direction (FedP2EFT, Lee et al.,
arXiv 2502.04387, Eq. 3). In the coordinates of LoRA-XS that is a column of R, which reads one
singular direction of a module's input; where modules are tied, it is a number that they share.
A head has far more numbers than all R together, so a client changes its matrix by a product of
low rank, whose ranks have gates too, and each of its other tensors has one gate. What comes
out is an adapter like any other: gates are folded in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from fedcert.adapters.space import TIED, AdapterSpace
from fedcert.errors import AdapterError
from fedcert.randomness import keyed_generator

__all__ = ["FIRST_GATE", "SMALLEST_GATE", "Gates", "clamp_passing"]

# The paper has 1e-4 for both, where a step moves weights by 1e-4. Here it moves them by some
# hundredths, and a gate that starts so far below would feel nothing but its penalties.
FIRST_GATE = 0.1
"""Where a gate starts that nobody knows anything about."""
SMALLEST_GATE = 0.01
"""In its penalties a gate is never below this, nor is what is kept."""
_LARGEST_GATE = 1000.0


@dataclass(frozen=True)
class Gates:
    """The gates of an adapter space.

    Parameters
    ----------
    space : AdapterSpace
        The coordinates of adapters.
    head_rank : int (default: 2)
        Rank of a client's change to each matrix of the head.
    """

    space: AdapterSpace
    head_rank: int = 2

    def __post_init__(self) -> None:
        if self.head_rank < 1:
            raise AdapterError(f"head_rank must be at least 1, not {self.head_rank}")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Name the gates: columns of R from the lowest target up, then those of the head."""
        if self.space.tied:
            columns = [f"{TIED}[{i}]" for i in range(self.space.tied)]
        else:
            rank = range(self.space.rank)
            columns = [f"{t.name}.R[:, {j}]" for t in self.space.targets for j in rank]
        for tensor in self.space.head:
            if len(tensor.shape) == 2:
                columns += [f"{tensor.name}[{j}]" for j in range(self._rank_of(tensor.shape))]
            else:
                columns.append(tensor.name)
        return tuple(columns)

    def __len__(self) -> int:
        return len(self.names)

    def leading(self, count: int) -> npt.NDArray[np.float64]:
        """Return gates of 1 for `count` directions, and 0 for the others.

        The strongest direction of every part comes first, then the second of each, as in plain
        LoRA of a lower rank.

        Parameters
        ----------
        count : int
            How many gates are on.
        """
        blocks, _, columns = self._cores
        places: list[int] = [j for _ in range(blocks) for j in range(columns)]
        for tensor in self.space.head:
            matrix = len(tensor.shape) == 2
            places += range(self._rank_of(tensor.shape)) if matrix else [0]
        # The head first: without it no client has a task of its own.
        order = np.lexsort((-np.arange(len(places)), np.array(places)))
        return _on(len(self), order[:count])

    def kept(self, gates: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
        """Return the largest `count` gates, clamped from below, and zero for the others.

        They are ranked before they are clamped: where many lie below, their order still says
        which is the most useful.

        Parameters
        ----------
        gates : numpy.ndarray
            Shape ``(G,)``, of any sign.
        count : int
            How many are kept.
        """
        order = np.argsort(-gates, kind="stable")[:count]
        return np.where(_on(len(self), order) > 0, np.maximum(gates, SMALLEST_GATE), 0.0)

    def start(self, device: torch.device | str = "cpu") -> list[torch.Tensor]:
        """Return what a client trains, all zero: its distance from the shared start."""
        tensors = [torch.zeros(self._cores)]
        for tensor in self.space.head:
            if len(tensor.shape) == 2:
                rank = self._rank_of(tensor.shape)
                tensors.append(torch.zeros(tensor.shape[0], rank))
                tensors.append(torch.zeros(rank, tensor.shape[1]))
            else:
                tensors.append(torch.zeros(tensor.shape))
        return [tensor.to(device).requires_grad_() for tensor in tensors]

    def change(self, trained: Sequence[torch.Tensor], gates: torch.Tensor) -> torch.Tensor:
        """Return the change of the adapter, shape ``(1, d)``, differentiably.

        Parameters
        ----------
        trained : sequence of torch.Tensor
            As of `start`.
        gates : torch.Tensor
            Shape ``(G,)``.
        """
        blocks, _, columns = self._cores
        cores, *head = trained
        parts = [(cores * gates[: blocks * columns].reshape(blocks, 1, columns)).flatten()]
        place, left = blocks * columns, iter(head)
        for down in self._downs(gates):
            if down is None:
                parts.append((next(left) * gates[place]).flatten())
                place += 1
            else:
                up, shift = next(left), next(left)
                on = gates[place : place + len(down)]
                parts.append(((up * on) @ (down + shift)).flatten())
                place += len(down)
        return torch.cat(parts)[None]

    def sizes(self, trained: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the sum of absolute values that each gate multiplies, shape ``(G,)``."""
        cores, *head = trained
        sums, left = [cores.abs().sum(dim=1).flatten()], iter(head)
        for tensor in self.space.head:
            part = next(left).abs()
            if len(tensor.shape) == 2:
                sums.append(part.sum(dim=0))
                next(left)
            else:
                sums.append(part.sum().reshape(1))
        return torch.cat(sums)

    @property
    def _cores(self) -> tuple[int, int, int]:
        """The shape of what is trained of the layers; the last axis has the gates."""
        if self.space.tied:
            return 1, 1, self.space.tied
        return len(self.space.targets), self.space.rank, self.space.rank

    def _rank_of(self, shape: tuple[int, ...]) -> int:
        return min(self.head_rank, *shape)

    def _downs(self, like: torch.Tensor) -> list[torch.Tensor | None]:
        """Return what all clients' changes to the head's matrices read at first, as in LoRA."""
        return [None if down is None else down.to(like.device) for down in self._first_downs]

    @cached_property
    def _first_downs(self) -> list[torch.Tensor | None]:
        downs: list[torch.Tensor | None] = []
        for tensor in self.space.head:
            if len(tensor.shape) != 2:
                downs.append(None)
                continue
            width = tensor.shape[1] ** -0.5
            size = (self._rank_of(tensor.shape), tensor.shape[1])
            drawn = keyed_generator("gates", tensor.name).uniform(-width, width, size)
            downs.append(torch.from_numpy(drawn).float())
        return downs


def clamp_passing(
    values: torch.Tensor, low: float = SMALLEST_GATE, high: float = _LARGEST_GATE
) -> torch.Tensor:
    """Clamp values, by default to the scales of gates; the gradient passes as if they were not.

    Parameters
    ----------
    values : torch.Tensor
        Of any shape.
    low, high : float
        The limits.

    Returns
    -------
    torch.Tensor
        Of the same shape.
    """
    return values + (values.clamp(low, high) - values).detach()


def _on(count: int, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    gates = np.zeros(count)
    gates[places] = 1.0
    return gates
