"""How delta is divided among a client's attempts, however many there will be.

The first attempt gets a share of it that the recipe says. The i-th gets
6 / (pi^2 (i - 1)^2) of what that leaves: the shares add up to one (Basel problem), so that a
client who never stops trying spends at most delta in all. Most clients try once, so the first
share is best close to one.
"""

from __future__ import annotations

import math
from decimal import ROUND_FLOOR, Decimal
from fractions import Fraction

from fedcert.errors import CertificateError

__all__ = ["FIRST_SHARE", "UNSAID_FIRST_SHARE", "attempt_delta"]

FIRST_SHARE = 0.99
"""The first attempt's share of delta in what is published now."""
UNSAID_FIRST_SHARE = 0.9
"""Its share where a recipe does not say: certificates were made before recipes said it."""

# 6 / pi^2 = 0.60792710185402662866...; cut off, so a little too small.
_BASEL = Fraction(Decimal("0.60792710185402662"))
# Enough for every use, and 0.99 * 0.05 reads 0.0495.
_DIGITS = 12


def attempt_delta(delta: float, attempt: int, first_share: float = UNSAID_FIRST_SHARE) -> float:
    """Return an attempt's part of delta, rounded down.

    Parameters
    ----------
    delta : float
        What all attempts of one client may spend together, in (0, 1).
    attempt : int
        Number of the attempt, from 1 on.
    first_share : float
        The first attempt's share of `delta`, in (0, 1) (default: `UNSAID_FIRST_SHARE`).

    Returns
    -------
    float
        Positive; over all attempts these add up to at most `delta`. So they do if
        `first_share` changes in between, as long as it is never below that of the first
        attempt.

    Raises
    ------
    CertificateError
        If an argument is out of range, or the part is too small for a double.

    Examples
    --------
    >>> [round(attempt_delta(0.05, attempt, 0.99), 5) for attempt in (1, 2, 3)]
    [0.0495, 0.0003, 8e-05]
    """
    if not isinstance(attempt, int) or isinstance(attempt, bool) or attempt < 1:
        raise CertificateError(f"attempts are counted from 1, not {attempt!r}")
    for name, value in (("delta", delta), ("first_share", first_share)):
        if not 0 < value < 1:
            raise CertificateError(f"{name} must lie between 0 and 1, not {value}")
    share = _share(attempt, Fraction(str(float(first_share))))
    part = share * Fraction(delta)
    value = _cut(share * Fraction(str(float(delta))))
    while Fraction(value) > part:
        value = math.nextafter(value, 0.0)
    if value <= 0:
        raise CertificateError(f"attempt {attempt} has nothing left of delta = {delta}")
    return value


def _share(attempt: int, first: Fraction) -> Fraction:
    """Return an attempt's share of delta, never too large."""
    if attempt == 1:
        return first
    return (1 - first) * _BASEL / (attempt - 1) ** 2


def _cut(value: Fraction) -> float:
    """Keep the leading digits, so that a certificate is easy to read."""
    exact = Decimal(value.numerator) / Decimal(value.denominator)
    last = Decimal(1).scaleb(exact.adjusted() - _DIGITS + 1)
    return float(exact.quantize(last, rounding=ROUND_FLOOR))
