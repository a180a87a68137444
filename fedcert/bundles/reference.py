"""A reference sample as arrays, which is how a bundle carries it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.data.examples import Examples
from fedcert.errors import BundleError

__all__ = ["arrays_of", "examples_from"]


def arrays_of(examples: Examples) -> dict[str, npt.NDArray[Any]]:
    """Return a sample's arrays by name; texts as UTF-8, one after another.

    Raises
    ------
    BundleError
        If an input cannot be read: what it is would be lost.
    """
    if examples.raw is not None and not examples.readable.all():
        raise BundleError("a reference sample holds an input that cannot be read")
    labels = {"labels": examples.labels.astype(np.int64)}
    if examples.inputs.dtype != object:
        return labels | {"inputs": examples.inputs}
    coded = [str(text).encode() for text in examples.inputs]
    ends = np.cumsum([len(text) for text in coded]).astype(np.int64)
    return labels | {"text": np.frombuffer(b"".join(coded), dtype=np.uint8), "ends": ends}


def examples_from(arrays: Mapping[str, npt.NDArray[Any]]) -> Examples | None:
    """Rebuild a sample from `arrays_of`; None from no arrays."""
    if not arrays:
        return None
    labels = np.asarray(arrays["labels"], dtype=np.int64)
    if "inputs" in arrays:
        return Examples(np.asarray(arrays["inputs"]), labels)
    content, ends = bytes(arrays["text"]), arrays["ends"].tolist()
    texts = np.empty(len(ends), dtype=object)
    starts = [0, *ends[:-1]] if ends else []
    texts[:] = [content[start:end].decode() for start, end in zip(starts, ends, strict=True)]
    return Examples(texts, labels)
