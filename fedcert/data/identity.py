"""What makes an example the same example, and the orders that follow from that.

Three questions have three answers. *Is it exactly the same?* decides commitments, the digest
of a support set, and retries. *Could it be the same, written otherwise?* decides what a
ledger recognizes as seen before: there the case of a letter, spacing, and the sign of zero do
not count. *Where does it stand?* decides which examples choose and which certify, and must not
change ever: certificates are verified by it.

An input that cannot be read has the bytes of its raw form in the place of its values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedcert.canonical import digest_tensors, sha256_hex
from fedcert.randomness import keyed_generator

if TYPE_CHECKING:
    from fedcert.data.examples import Examples

__all__ = [
    "collapsed_form",
    "content_order",
    "exact_contents",
    "exact_form",
    "in_drawn_order",
    "raw_form",
    "recognized_form",
]


def exact_form(item: Any) -> bytes:
    """Return bytes that only equal inputs share, however their numbers are stored."""
    if isinstance(item, bytes):
        return b"unreadable:" + item
    if isinstance(item, str):
        return b"text:" + _bytes(item)  # never what `collapsed_form` gives
    return np.ascontiguousarray(item, dtype="<f8").tobytes()


def collapsed_form(item: Any) -> bytes:
    """Return what drawn orders follow from: as `exact_form`, but texts are collapsed.

    Certificates made before texts were told apart by case have support digests of this form.
    """
    return _bytes(_collapsed(item)) if isinstance(item, str) else exact_form(item)


def recognized_form(item: Any) -> bytes:
    """Return bytes that inputs share which a ledger takes for the same one."""
    if isinstance(item, str | bytes):
        return collapsed_form(item)
    # Adding zero gives -0.0 the sign of 0.0.
    return exact_form(np.asarray(item, dtype=np.float64) + 0.0)


def raw_form(value: Any) -> bytes:
    """Return bytes for an input that cannot be read, the same whatever file it came from."""
    if isinstance(value, str):
        return b"text:" + _bytes(" ".join(value.split()))
    try:
        with np.errstate(over="ignore"):
            numbers = np.asarray(value, dtype=np.float64).astype(np.float32).ravel()
    except (TypeError, ValueError):
        return b"value:" + _bytes(repr(value))
    numbers[np.isnan(numbers)] = np.nan  # one NaN of many
    return b"numbers:" + numbers.astype("<f8").tobytes()


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


def _collapsed(text: str) -> str:
    return " ".join(text.split()).casefold()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # half of a character has bytes as well
