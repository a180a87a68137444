"""The number that a randomized bound takes from the seed.

A count of errors is a whole number, so the exact binomial bound fails less often than its
budget allows. A number that is drawn with the seed, after the commitment, fills the gap
(`fedcert.certificates.binomial_upper_bound`). It must not be the client's choice, nor be known
before the examples are fixed: only a server's seed gives one.
"""

from __future__ import annotations

from fedcert.canonical import sha256_hex

__all__ = ["EVENLY", "LEAST", "number_of"]

LEAST = 0.1
"""Smallest number: it costs next to nothing, and keeps a lucky bound from looking absurd."""

EVENLY = tuple(max(LEAST, (i + 0.5) / 10) for i in range(10))
"""Numbers, equally likely, over which a mean is what to expect of the seed."""

_DOMAIN = b"fedcert/randomized bound/v1"
_BITS = 53


def number_of(seed: str) -> float:
    """Return a seed's number, a double from `LEAST` to 1.

    It is uniform on the multiples of 2**-53 in (0, 1], and so never below a number that is
    uniform on (0, 1), which validity asks for; then `LEAST` may raise it.

    Parameters
    ----------
    seed : str
        64 hexadecimal digits. What else is drawn with it is drawn in other domains, so that
        candidates and split say nothing about the number.
    """
    drawn = int(sha256_hex(_DOMAIN, bytes.fromhex(seed)), 16) >> (256 - _BITS)
    return max(LEAST, (drawn + 1) / (1 << _BITS))
