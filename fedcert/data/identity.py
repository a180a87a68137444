"""What makes an input the same input.

Two questions have two answers. *Is it exactly the same?* decides commitments, the digest of a
support set, and retries. *Could it be the same, written otherwise?* decides what a ledger
recognizes as seen before: there the case of a letter, spacing, how an accent is written, and
the sign of zero do not count. Where an example stands follows from the first, and from
an older form of the second (`fedcert.data.orders`).

An input that cannot be read has the bytes of its raw form in the place of its values.
"""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np

__all__ = [
    "collapsed_form",
    "exact_form",
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
    """Return bytes that inputs share which a ledger takes for the same one.

    Of a text that is its canonical composition (NFC): an accent is a letter of its own in files
    that some systems write, and a part of its letter in others.
    """
    if isinstance(item, str):
        return collapsed_form(unicodedata.normalize("NFC", item))
    if isinstance(item, bytes):
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


def _collapsed(text: str) -> str:
    return " ".join(text.split()).casefold()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # half of a character has bytes as well
