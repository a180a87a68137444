"""The orders of examples that follow from their content, whatever a client lists first.

They decide which examples choose and which certify, and must not change ever: certificates are
verified by them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.canonical import digest_tensors, sha256_hex
from fedcert.data.examples import Examples
from fedcert.data.identity import exact_form
from fedcert.randomness import keyed_generator

__all__ = ["content_order", "exact_contents", "in_drawn_order"]


def exact_contents(examples: Examples) -> list[bytes]:
    """Return for each example bytes that only identical ones share, storage included.

    The leaves of commitments are made from them, so they never change.
    """
    return [
        sha256_hex(_stored_form(item), str(int(label)).encode()).encode()
        for item, label in zip(examples.items(), examples.labels, strict=True)
    ]


def content_order(examples: Examples) -> list[int]:
    """Return an order of the examples that follows from their exact content alone."""
    contents = exact_contents(examples)
    return sorted(range(len(examples)), key=contents.__getitem__)


def in_drawn_order(examples: Examples, seed: str) -> Examples:
    """Put examples into the order that decides which of them choose and which certify.

    The order follows from the seed and the examples' content, not from the order in which
    the client listed them, or it could be shopped for. Examples that count as the same input,
    such as texts that differ in case, are put in order by their exact content.
    """
    examples = examples.take(np.array(content_order(examples), dtype=np.int64))
    order = keyed_generator("support order", seed).permutation(len(examples))
    return examples.canonical_order(seed).take(order)


def _stored_form(item: Any) -> bytes:
    if isinstance(item, str | bytes):
        return exact_form(item)
    array: npt.NDArray[Any] = np.asarray(item)
    return digest_tensors({"input": array}).encode()
