"""Byte representations that two machines agree on: canonical JSON and tensor digests.

Digests cover tensors (name, dtype, shape, bytes) rather than files, because the order of
safetensors metadata is not stable (safetensors issue 584).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import rfc8785

from fedcert.errors import FedcertError

__all__ = ["canonical_json", "digest_json", "digest_tensors", "sha256_hex"]


def sha256_hex(*parts: bytes) -> str:
    """Hash byte strings as one unambiguous sequence.

    Each part is preceded by its length, so that ``(b"ab", b"c")`` and ``(b"a", b"bc")``
    differ.

    Returns
    -------
    str
        64 lower-case hexadecimal digits.
    """
    state = hashlib.sha256()
    for part in parts:
        _feed(state, part)
    return state.hexdigest()


def canonical_json(value: Any) -> bytes:
    """Encode a JSON value as RFC 8785 canonical bytes.

    Raises
    ------
    FedcertError
        If the value holds NaN, an infinity, an integer of 2**53 or more, or something
        that JSON has no word for.

    Examples
    --------
    >>> canonical_json({"b": 1.0, "a": [True, None]})
    b'{"a":[true,null],"b":1}'
    """
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, TypeError) as error:
        raise FedcertError(f"this value has no canonical JSON form: {error}") from error


def digest_json(value: Any) -> str:
    """Return the SHA-256 digest of a JSON value's canonical form."""
    return sha256_hex(canonical_json(value))


def digest_tensors(tensors: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return one SHA-256 digest over named tensors, independent of their order.

    Parameters
    ----------
    tensors : Mapping[str, numpy.ndarray]
        Any shapes and dtypes; the bytes are hashed in little-endian, C order.
    """
    state = hashlib.sha256()
    for name in sorted(tensors):
        # Not np.ascontiguousarray, which turns a scalar into a vector of one.
        array = np.asarray(tensors[name], order="C")
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        header = {"name": name, "dtype": array.dtype.name, "shape": list(array.shape)}
        _feed(state, canonical_json(header))
        # As it lies in memory: a copy of the largest tensor would be a model's peak.
        _feed(state, array.reshape(-1).view(np.uint8).data)
    return state.hexdigest()


def _feed(state: hashlib._Hash, part: bytes | memoryview) -> None:
    """Hash a part, preceded by its length."""
    state.update(len(part).to_bytes(8, "big"))
    state.update(part)
