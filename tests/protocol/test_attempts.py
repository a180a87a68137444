"""Delta is divided so that no number of attempts spends more than there is."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcert.certificates.attempts import attempt_delta
from fedcert.errors import CertificateError


def test_the_first_attempts_get_what_the_schedule_says() -> None:
    assert attempt_delta(0.05, 1) == 0.045
    assert attempt_delta(0.05, 2) == pytest.approx(0.05 * 0.1 * 6 / 3.141592653589793**2)
    assert attempt_delta(0.05, 4) == pytest.approx(attempt_delta(0.05, 2) / 9)


# 6 / pi^2, rounded up in its last digit: the shares 1 / j^2 of it add up to one.
BASEL = Fraction("0.6079271018540266286632767792583658335")


@settings(max_examples=40, deadline=None)
@given(st.floats(1e-300, 1, exclude_max=True, exclude_min=True))
def test_no_attempt_gets_more_than_its_share(delta: float) -> None:
    shares = [Fraction(9, 10), *(BASEL / 10 / j**2 for j in range(1, 200))]
    parts = [Fraction(attempt_delta(delta, i)) for i in range(1, 201)]
    assert all(0 < p <= s * Fraction(delta) for p, s in zip(parts, shares, strict=True))
    assert sum(parts) <= Fraction(delta)
    assert parts == sorted(parts, reverse=True)


def test_it_loses_next_to_nothing_to_rounding() -> None:
    for delta in (0.05, 0.1, 0.3, 1e-9):
        assert attempt_delta(delta, 1) >= 0.9 * delta * (1 - 1e-11)


@pytest.mark.parametrize("attempt", [0, -1, True, 1.0])
def test_attempts_are_counted_from_one(attempt: int) -> None:
    with pytest.raises(CertificateError, match="attempts are counted from 1"):
        attempt_delta(0.05, attempt)


def test_what_has_no_double_is_refused() -> None:
    with pytest.raises(CertificateError, match="has nothing left of delta"):
        attempt_delta(5e-324, 2)
