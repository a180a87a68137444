"""Tensors in a file without a name, the oldest overwritten first."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from dataclasses import dataclass
from typing import BinaryIO, cast

import torch

__all__ = ["SpilledTensors"]


@dataclass(frozen=True)
class _Place:
    """Where a tensor's bytes are, and what they mean."""

    start: int
    size: int
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    def overlaps(self, start: int, end: int) -> bool:
        return self.start < end and start < self.start + self.size


class SpilledTensors:
    """A ring of tensors in the system's folder for temporary files.

    Nobody finds the file by a name, and it is gone with this process, even if that is killed.
    A disk that is full ends the ring: nothing is kept from then on.

    Parameters
    ----------
    budget_mib : float
        Size of the file at most; with 0 there is none, and nothing is kept.
    """

    def __init__(self, budget_mib: float) -> None:
        self._budget, self._next = int(budget_mib * 2**20), 0
        self._file: BinaryIO | None = None
        # In the order in which they were written, and so in which they are overwritten.
        self._places: OrderedDict[bytes, _Place] = OrderedDict()

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def keep(self, key: bytes, tensor: torch.Tensor) -> None:
        """Write a tensor, unless it is there already or larger than all of the budget."""
        if key in self._places or not 0 < tensor.nbytes <= self._budget:
            return
        start = self._next if self._next + tensor.nbytes <= self._budget else 0
        end = start + tensor.nbytes
        for other in [k for k, place in self._places.items() if place.overlaps(start, end)]:
            del self._places[other]
        try:
            if self._file is None:
                # It stays open as long as this ring is there.
                self._file = cast(BinaryIO, tempfile.TemporaryFile(buffering=0))  # noqa: SIM115
            self._file.seek(start)
            flat = tensor.detach().cpu().contiguous().flatten()
            written = self._file.write(flat.view(torch.uint8).numpy().data)
        except OSError:
            written = 0
        if written != tensor.nbytes:
            self._budget = 0
            self._places.clear()
            return
        self._places[key] = _Place(
            start, tensor.nbytes, tensor.shape, tensor.dtype, tensor.device
        )
        self._next = end

    def read(self, key: bytes) -> torch.Tensor | None:
        """Return a tensor with the bits that were written; None if it is not there any more."""
        place = self._places.get(key)
        if place is None or self._file is None:
            return None
        try:
            self._file.seek(place.start)
            data = bytearray(self._file.read(place.size))
        except OSError:
            return None
        if len(data) != place.size:
            return None
        found = torch.frombuffer(data, dtype=place.dtype).reshape(place.shape)
        return found.to(place.device)
