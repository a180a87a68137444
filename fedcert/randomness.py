"""Explicit randomness: generators keyed by seeds and words, never by global state.

Candidate j of a seed depends on (seed, j) alone, so that a third party can redraw one
candidate without drawing the others. NumPy's counter-based Philox gives that:
the seed is the key, j is the high word of the counter, and streams cannot overlap.
"""

from __future__ import annotations

import hashlib
import secrets

import numpy as np
import numpy.typing as npt

__all__ = [
    "candidate_noise",
    "derive_seed",
    "fresh_seed",
    "keyed_generator",
    "keyed_signs",
    "small_seed",
]


def derive_seed(*words: str | int) -> str:
    """Derive a 256-bit seed from words, unambiguously.

    Parameters
    ----------
    *words : str or int
        What the seed stands for: a domain, then names and numbers.

    Returns
    -------
    str
        64 hexadecimal digits.

    Examples
    --------
    >>> len(derive_seed("candidates", 7))
    64
    >>> derive_seed("a", "bc") == derive_seed("ab", "c")
    False
    """
    state = hashlib.sha256(b"fedcert/seed/v1")
    for word in words:
        data = str(word).encode()
        state.update(len(data).to_bytes(8, "big") + data)
    return state.hexdigest()


def fresh_seed() -> str:
    """Return an unpredictable 256-bit seed in hexadecimal."""
    return secrets.token_hex(32)


def small_seed(*words: str | int) -> int:
    """Derive a 63-bit integer seed, for libraries that take an integer."""
    return int(derive_seed(*words)[:16], 16) >> 1


def keyed_generator(*words: str | int) -> np.random.Generator:
    """Return a generator that depends on the given words alone."""
    key = int(derive_seed(*words)[:32], 16)
    return np.random.Generator(np.random.Philox(key=key))


def keyed_signs(*words: str | int, count: int) -> npt.NDArray[np.int8]:
    """Return signs, -1 or 1, that depend on the given words alone.

    They are the generator's bits themselves, so no version of NumPy draws others; more of them
    begin with the same.
    """
    key = int(derive_seed(*words)[:32], 16)
    raw = np.random.Philox(key=key).random_raw(-(-count // 64))
    bits = np.unpackbits(raw.astype("<u8").view(np.uint8), bitorder="little", count=count)
    return (2 * bits.astype(np.int8) - 1).astype(np.int8)


def candidate_noise(seed: str, start: int, count: int, width: int) -> npt.NDArray[np.float64]:
    """Draw the standard normal noise of candidates `start` to ``start + count - 1``.

    Parameters
    ----------
    seed : str
        A 256-bit seed in hexadecimal.
    start, count : int
        Which candidates; row i belongs to candidate ``start + i`` and does not depend
        on `start` or `count`.
    width : int
        How many numbers each candidate needs.

    Returns
    -------
    numpy.ndarray
        Float64 of shape ``(count, width)``.

    Examples
    --------
    Candidate j depends on seed and j alone:

    >>> seed = derive_seed("example")
    >>> noise = candidate_noise(seed, 0, 10, 4)
    >>> bool((candidate_noise(seed, 7, 1, 4)[0] == noise[7]).all())
    True
    """
    # Philox takes a 128-bit key: hashing folds in all 256 bits of the seed.
    key = int(derive_seed("candidates", seed)[:32], 16)
    noise = np.empty((count, width))
    for row in range(count):
        bits = np.random.Philox(key=key, counter=[0, 0, 0, start + row])
        noise[row] = np.random.Generator(bits).standard_normal(width)
    return noise
