"""Binomial tails in exact rational arithmetic: the judge of the floating-point code."""

from __future__ import annotations

from fractions import Fraction
from math import comb


def exact_tail(errors: int, trials: int, p: float) -> Fraction:
    """Return P[Binomial(trials, p) <= errors] for the very double `p`."""
    wrong, whole = Fraction(p).as_integer_ratio()
    right = whole - wrong
    total = sum(comb(trials, i) * wrong**i * right ** (trials - i) for i in range(errors + 1))
    return Fraction(total, whole**trials)
