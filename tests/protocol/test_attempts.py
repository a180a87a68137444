"""Delta is divided so that no number of attempts spends more than there is."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcert.certificates.attempts import FIRST_SHARE, UNSAID_FIRST_SHARE, attempt_delta
from fedcert.errors import CertificateError


def test_the_first_attempt_gets_nearly_all() -> None:
    assert attempt_delta(0.05, 1, FIRST_SHARE) == 0.0495
    assert attempt_delta(0.05, 2, FIRST_SHARE) == pytest.approx(0.05 * 0.01 * 0.607927)
    assert attempt_delta(0.05, 4, FIRST_SHARE) == pytest.approx(
        attempt_delta(0.05, 2, FIRST_SHARE) / 9
    )


def test_where_nothing_is_said_attempts_get_what_they_always_had() -> None:
    assert attempt_delta(0.05, 1) == 0.045
    assert attempt_delta(0.05, 2) == pytest.approx(0.05 * 0.1 * 6 / 3.141592653589793**2)
    assert attempt_delta(0.05, 4) == pytest.approx(attempt_delta(0.05, 2) / 9)


# 6 / pi^2, rounded up in its last digit: the shares 1 / j^2 of it add up to one.
BASEL = Fraction("0.6079271018540266286632767792583658335")


@settings(max_examples=40, deadline=None)
@given(
    st.floats(1e-290, 1, exclude_max=True, exclude_min=True),
    st.sampled_from([0.5, 0.9, FIRST_SHARE, 0.999]),
)
def test_no_attempt_gets_more_than_its_share(delta: float, first: float) -> None:
    left = 1 - Fraction(str(first))
    shares = [1 - left, *(BASEL * left / j**2 for j in range(1, 200))]
    parts = [Fraction(attempt_delta(delta, i, first)) for i in range(1, 201)]
    assert all(0 < p <= s * Fraction(delta) for p, s in zip(parts, shares, strict=True))
    assert sum(parts) <= Fraction(delta)
    assert parts == sorted(parts, reverse=True)


def test_it_loses_next_to_nothing_to_rounding() -> None:
    for delta in (0.05, 0.1, 0.3, 1e-9):
        for first in (UNSAID_FIRST_SHARE, FIRST_SHARE):
            assert attempt_delta(delta, 1, first) >= first * delta * (1 - 1e-11)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0.5, 0.9, FIRST_SHARE, 0.999]), min_size=2, max_size=40))
def test_bundles_of_different_rules_spend_no_more_together(rules: list[float]) -> None:
    # What the server lets happen: no later rule leaves more to later attempts than the first.
    rules = [rules[0], *(max(rule, rules[0]) for rule in rules[1:])]
    parts = [Fraction(attempt_delta(0.05, i, rule)) for i, rule in enumerate(rules, start=1)]
    assert sum(parts) <= Fraction(0.05)


def test_an_older_rule_after_a_newer_one_would_spend_more_than_delta() -> None:
    # Why the server refuses that.
    parts = [attempt_delta(0.05, 1, FIRST_SHARE), attempt_delta(0.05, 2)]
    assert sum(parts) > 0.05


@pytest.mark.parametrize("first", [0.0, 1.0, -0.1, float("nan")])
def test_the_first_share_is_a_share(first: float) -> None:
    with pytest.raises(CertificateError, match="first_share must lie between 0 and 1"):
        attempt_delta(0.05, 1, first)


@pytest.mark.parametrize("attempt", [0, -1, True, 1.0])
def test_attempts_are_counted_from_one(attempt: int) -> None:
    with pytest.raises(CertificateError, match="attempts are counted from 1"):
        attempt_delta(0.05, attempt)


def test_what_has_no_double_is_refused() -> None:
    with pytest.raises(CertificateError, match="has nothing left of delta"):
        attempt_delta(5e-324, 2)
