"""Labelled examples, and digests that recognize an example seen before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.canonical import sha256_hex
from fedcert.errors import DataError

__all__ = ["Examples"]


@dataclass(frozen=True)
class Examples:
    """Inputs with their labels.

    Attributes
    ----------
    inputs : numpy.ndarray
        Shape ``(n, ...)``: images as numbers (as in the source, not yet normalized), or
        texts as an object array of ``str``.
    labels : numpy.ndarray
        Integer class of each example, shape ``(n,)``.
    """

    inputs: npt.NDArray[Any]
    labels: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels):
            raise DataError(
                f"{len(self.inputs)} inputs came with {len(self.labels)} labels; "
                "give one label per input"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Sequence[int] | npt.NDArray[np.int64] | slice) -> Examples:
        """Return the examples at `indices`, in that order."""
        return Examples(self.inputs[indices], self.labels[indices])

    def input_digests(self, key: str) -> list[str]:
        """Digest each normalized input under a key; the label does not take part.

        A relabeled example is the same example, and whoever lacks the key cannot test
        whether a guessed example is in the list.
        """
        return [sha256_hex(key.encode(), _input_bytes(item)) for item in self.inputs]

    def multiset_digest(self, key: str) -> str:
        """Digest the examples with their labels, whatever their order."""
        items = [
            sha256_hex(key.encode(), _input_bytes(item), str(int(label)).encode())
            for item, label in zip(self.inputs, self.labels, strict=True)
        ]
        return sha256_hex(*(item.encode() for item in sorted(items)))

    def canonical_order(self, key: str) -> Examples:
        """Return the examples in an order that follows from their content alone.

        The order in which a client lists its examples must not decide which of them
        certify, or it could be shopped for.
        """
        digests = self.input_digests(key)
        order = sorted(range(len(self)), key=lambda i: (digests[i], int(self.labels[i])))
        return self.take(np.array(order, dtype=np.int64))


def _input_bytes(item: Any) -> bytes:
    """Return bytes that equal inputs share: collapsed text, or float64 values."""
    if isinstance(item, str):
        return " ".join(item.split()).casefold().encode()
    return np.ascontiguousarray(item, dtype="<f8").tobytes()
