"""How delta is divided among a bound and the promises beside it, in numbers that add up."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from typing import Any

from fedcert.certificates.promises.base import Promise

__all__ = ["rounded_down", "share_of", "together"]

# Enough for every use, and the sum of .0125, .0125, and .025 reads .05.
_DIGITS = 9
_CUT = 12


def rounded_down(value: Fraction) -> float:
    """Return a number of nine digits that is not above `value`."""
    exact = Decimal(value.numerator) / Decimal(value.denominator)
    return float(Context(prec=_DIGITS, rounding=ROUND_FLOOR).create_decimal(exact))


def share_of(promise: Promise[Any], delta: float) -> float:
    """Return a promise's part of delta beside a recipe's own `delta`, rounded down.

    Examples
    --------
    >>> from fedcert.certificates.promises import SetsPromise
    >>> share_of(SetsPromise(share=0.5, size=3), 0.02)
    0.01
    """
    exact = Decimal(str(float(promise.share))) * Decimal(str(float(delta)))
    # Cut as the parts of later attempts are, so that a certificate is easy to read.
    return float(Context(prec=_CUT, rounding=ROUND_FLOOR).create_decimal(exact))


def together(promises: tuple[Promise[Any], ...], delta: float) -> float:
    """Return what a recipe's own `delta` and its promises' shares add up to, rounded up."""
    if not promises:
        return delta
    shares = 1 + sum((Decimal(str(float(p.share))) for p in promises), Decimal(0))
    rounded = Context(prec=_DIGITS, rounding=ROUND_CEILING)
    return float(rounded.create_decimal(Decimal(str(float(delta))) * shares))
