"""Labeled examples, and digests that recognize an example seen before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.canonical import sha256_hex
from fedcert.data.identity import collapsed_form, exact_form, recognized_form
from fedcert.errors import DataError

__all__ = ["ALWAYS_WRONG", "Examples"]

ALWAYS_WRONG = -1
"""Label of an example on which every prediction counts as an error."""


@dataclass(frozen=True)
class Examples:
    """Inputs with their labels.

    An example that cannot be read, or whose label is none of the task's, was observed like
    any other: to leave it out would change the distribution that a sample speaks about. It
    has the label `ALWAYS_WRONG`, so that it counts as an error whatever is predicted, teaches
    nobody anything, and does not tell candidates apart.

    Attributes
    ----------
    inputs : numpy.ndarray
        Shape ``(n, ...)``: images as numbers (as in the source, not yet normalized), or
        texts as an object array of ``str``. In the place of an input that cannot be read
        stands another one's, so that all can be encoded.
    labels : numpy.ndarray
        Integer class of each example, or `ALWAYS_WRONG`, shape ``(n,)``.
    raw : numpy.ndarray, optional
        Objects, shape ``(n,)``: the bytes of an input that cannot be read
        (`fedcert.data.identity.raw_form`), and None for each of the others. By default all
        can be read.
    """

    inputs: npt.NDArray[Any]
    labels: npt.NDArray[np.int64]
    raw: npt.NDArray[Any] | None = None

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels):
            raise DataError(
                f"{len(self.inputs)} inputs came with {len(self.labels)} labels; "
                "give one label per input"
            )
        if self.raw is not None and (self.labels[~self.readable] != ALWAYS_WRONG).any():
            raise DataError("an input that cannot be read counts as an error")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """Which inputs can be read, shape ``(n,)``."""
        if self.raw is None:
            return np.ones(len(self.labels), dtype=np.bool_)
        return np.array([form is None for form in self.raw], dtype=np.bool_)

    @property
    def usable(self) -> Examples:
        """The examples that can be learned from: readable, and with a label of the task."""
        rows = np.flatnonzero(self.labels != ALWAYS_WRONG)
        return self if len(rows) == len(self) else self.take(rows)

    @property
    def always_wrong(self) -> int:
        """How many of them count as errors whatever is predicted."""
        return int(np.sum(self.labels == ALWAYS_WRONG))

    @property
    def duplicates(self) -> int:
        """How many of them have an input that occurs more than once among them."""
        return int(np.sum(self.occurrences() > 1))

    def items(self) -> Iterator[Any]:
        """Yield what each example is recognized by: its input, or the bytes of its raw form."""
        if self.raw is None:
            yield from self.inputs
            return
        for item, form in zip(self.inputs, self.raw, strict=True):
            yield item if form is None else form

    def take(self, indices: Sequence[int] | npt.NDArray[np.int64] | slice) -> Examples:
        """Return the examples at `indices`, in that order."""
        raw = None if self.raw is None else self.raw[indices]
        return Examples(self.inputs[indices], self.labels[indices], raw)

    def input_digests(
        self, key: str, form: Callable[[Any], bytes] = recognized_form
    ) -> list[str]:
        """Digest each input under a key; the label does not take part.

        A relabeled example is the same example, and whoever lacks the key cannot test
        whether a guessed example is in the list. `form` is one of `fedcert.data.identity`.
        """
        return [sha256_hex(key.encode(), form(item)) for item in self.items()]

    def occurrences(self) -> npt.NDArray[np.int64]:
        """Return how often each example's input is among them, shape ``(n,)``.

        What cannot be read counts as one of a kind: an error each time, for every candidate.
        """
        digests = self.input_digests("")
        counts = Counter(digests)
        found = np.array([counts[digest] for digest in digests], dtype=np.int64)
        return np.where(self.readable, found, 1)

    def multiset_digest(self, key: str, form: Callable[[Any], bytes] = exact_form) -> str:
        """Digest the examples with their labels, whatever their order."""
        items = [
            sha256_hex(key.encode(), form(item), str(int(label)).encode())
            for item, label in zip(self.items(), self.labels, strict=True)
        ]
        return sha256_hex(*(item.encode() for item in sorted(items)))

    def inputs_digest(self, key: str) -> str:
        """Digest the inputs, whatever their labels and their order."""
        digests = self.input_digests(key, exact_form)
        return sha256_hex(*(digest.encode() for digest in sorted(digests)))

    def canonical_order(self, key: str) -> Examples:
        """Return the examples in an order that follows from their content alone.

        The order in which a client lists its examples must not decide which of them
        certify, or it could be shopped for.
        """
        digests = self.input_digests(key, collapsed_form)
        order = sorted(range(len(self)), key=lambda i: (digests[i], int(self.labels[i])))
        return self.take(np.array(order, dtype=np.int64))
