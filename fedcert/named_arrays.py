"""Named arrays: how several sets of them share one message or file, and how large they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import TypeVar

__all__ = ["largest_message", "prefixed", "under"]

_Array = TypeVar("_Array")

# Bytes of an array's name, shape, and format in a message, generously.
_OVERHEAD = 4096


def prefixed(prefix: str, arrays: Mapping[str, _Array]) -> dict[str, _Array]:
    """Return the arrays under names that begin with a prefix.

    Examples
    --------
    >>> prefixed("net.", {"bias": 1})
    {'net.bias': 1}
    """
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def under(prefix: str, arrays: Mapping[str, _Array]) -> dict[str, _Array]:
    """Return the arrays whose names begin with a prefix, without it.

    Examples
    --------
    >>> under("net.", {"net.bias": 1, "adapter.bias": 2})
    {'bias': 1}
    """
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def largest_message(shapes: Iterable[tuple[int, ...]], *, item: int = 8) -> int:
    """Return how many bytes arrays of these shapes may take in a message, at most.

    Parameters
    ----------
    shapes : iterable of tuple
        The shape of each array.
    item : int (default: 8)
        Bytes of a number.
    """
    return sum(item * prod(shape) + _OVERHEAD for shape in shapes)
