"""How delta is divided among a client's attempts, however many there will be.

The first attempt gets nine tenths. The i-th gets 6 / (pi^2 (i - 1)^2) of the last tenth:
these shares add up to one (Basel problem), so that a client who never stops trying spends
at most delta in all.
"""

from __future__ import annotations

import math
from decimal import ROUND_FLOOR, Decimal
from fractions import Fraction

from fedcert.errors import CertificateError

__all__ = ["attempt_delta"]

# 6 / pi^2 = 0.60792710185402662866...; cut off, so a little too small.
_BASEL = Fraction(Decimal("0.60792710185402662"))
# Enough for every use, and 0.9 * 0.05 reads 0.045.
_DIGITS = 12


def attempt_delta(delta: float, attempt: int) -> float:
    """Return an attempt's part of delta, rounded down.

    Parameters
    ----------
    delta : float
        What all attempts of one client may spend together, in (0, 1).
    attempt : int
        Number of the attempt, from 1 on.

    Returns
    -------
    float
        Positive; over all attempts these add up to at most `delta`.

    Raises
    ------
    CertificateError
        If an argument is out of range, or the part is too small for a double.
    """
    if not isinstance(attempt, int) or isinstance(attempt, bool) or attempt < 1:
        raise CertificateError(f"attempts are counted from 1, not {attempt!r}")
    if not 0 < delta < 1:
        raise CertificateError(f"delta must lie between 0 and 1, not {delta}")
    part = share(attempt) * Fraction(delta)
    value = _cut(share(attempt) * Fraction(str(float(delta))))
    while Fraction(value) > part:
        value = math.nextafter(value, 0.0)
    if value <= 0:
        raise CertificateError(f"attempt {attempt} has nothing left of delta = {delta}")
    return value


def share(attempt: int) -> Fraction:
    """Return an attempt's share of delta, never too large."""
    if attempt == 1:
        return Fraction(9, 10)
    return Fraction(1, 10) * _BASEL / (attempt - 1) ** 2


def _cut(value: Fraction) -> float:
    """Keep the leading digits, so that a certificate is easy to read."""
    exact = Decimal(value.numerator) / Decimal(value.denominator)
    last = Decimal(1).scaleb(exact.adjusted() - _DIGITS + 1)
    return float(exact.quantize(last, rounding=ROUND_FLOOR))
