"""Early exits on answers that are written out: the threshold, and what is counted by it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedcert.certificates import (
    WEIGHT_DENOMINATOR,
    Answers,
    Early,
    Evidence,
    ExitOutcome,
    ExitPromise,
    Ground,
    PointsPromise,
    binomial_upper_bound,
)
from fedcert.certificates.promises import promises_from
from fedcert.errors import CertificateError

PROMISE = ExitPromise(share=1.0, early="early")
GROUND = Ground(budget=0.05, trials=4, chosen_on=4)
DIGEST = "ab" * 32


def answers(*said: tuple[float, bool]) -> Answers:
    """Return answers of the given margins, right or wrong."""
    logits = [(margin, 0.0) if right else (0.0, margin) for margin, right in said]
    return Answers(np.array(logits), np.zeros(len(said), dtype=np.int64))


class Written(Evidence):
    """What two adapters answer, as a test says."""

    def __init__(self, early: Answers, late: Answers, *, weight: int = 2**53) -> None:
        super().__init__(1e-4)
        self._early, self._late, self._weight = early, late, weight

    @property
    def choosing(self) -> Answers:
        return self._late

    @property
    def certifying(self) -> Answers:
        return self._late

    def early(self, point: str) -> Early | None:
        return Early(DIGEST, self._weight, self._early, self._early) if point else None

    def of(self, rival: str) -> Answers:
        raise NotImplementedError(rival)


RIGHT = answers(*[(1.0, True)] * 4)


def test_the_threshold_is_the_lowest_at_which_nothing_is_lost() -> None:
    early = answers((0.5, False), (1.0, True), (2.0, False), (3.0, True))
    assert PROMISE.choose(Written(early, RIGHT), GROUND) == 2.5
    # Where the late adapter is wrong as often, the early one answers all.
    as_bad = answers((1.0, False), (1.0, False), (1.0, True), (1.0, True))
    assert PROMISE.choose(Written(early, as_bad), GROUND) == 0.0
    # Where none may answer, all go on: the threshold lies beyond every margin.
    never = answers(*[(margin, False) for margin in (0.5, 1.0, 2.0, 3.0)])
    assert PROMISE.choose(Written(never, RIGHT), GROUND) == 4.0


def test_wrong_ones_and_those_that_go_on_are_counted() -> None:
    early = answers((0.5, False), (1.0, True), (2.0, False), (3.0, True))
    late = answers((1.0, True), (1.0, False), (1.0, True), (1.0, True))
    outcome = PROMISE.count(Written(early, late), 1.5, GROUND)
    assert (outcome.wrong, outcome.goes_on) == (2, 2)
    assert outcome.wrong_at_most == binomial_upper_bound(2, 4, 0.025)
    assert outcome.goes_on_at_most == binomial_upper_bound(2, 4, 0.025)
    assert outcome.early_exit() == (DIGEST, 1.5)


def test_what_lies_at_the_threshold_counts_on_both_sides() -> None:
    early = answers(*[(1.5, right) for right in (False, True, False, True)])
    late = answers(*[(1.0, right) for right in (True, False, False, True)])
    outcome = PROMISE.count(Written(early, late), 1.5, GROUND)
    assert (outcome.wrong, outcome.goes_on) == (3, 4)


def test_what_has_no_label_and_what_failed_go_on_and_are_wrong() -> None:
    logits = np.array([(9.0, 0.0), (np.nan, 0.0), (9.0, 0.0), (9.0, 0.0)])
    early = Answers(logits, np.array([-1, 0, 0, 0]))
    late = Answers(np.array([(1.0, 0.0)] * 4), np.array([-1, 0, 0, 0]))
    outcome = PROMISE.count(Written(early, late), 1.5, GROUND)
    # What failed goes on, and the late adapter is right about it.
    assert (outcome.wrong, outcome.goes_on) == (1, 2)


def test_an_early_adapter_of_many_is_paid_for() -> None:
    one = PROMISE.count(Written(RIGHT, RIGHT), 0.0, GROUND)
    among = Written(RIGHT, RIGHT, weight=WEIGHT_DENOMINATOR // 8)
    many = PROMISE.count(among, 0.0, GROUND)
    assert one.weight is None
    assert many.wrong_at_most == binomial_upper_bound(0, 4, 0.025 / 8)
    PROMISE.recount(many, among, GROUND)
    with pytest.raises(CertificateError, match="the certificate says"):
        PROMISE.recount(replace(many, weight=None), among, GROUND)


def test_another_threshold_than_is_chosen_is_found() -> None:
    early = answers((0.5, False), (1.0, True), (2.0, False), (3.0, True))
    seen = Written(early, RIGHT)
    PROMISE.recount(PROMISE.fulfil(seen, GROUND), seen, GROUND)
    shopped = PROMISE.count(seen, 1.5, GROUND)
    with pytest.raises(CertificateError, match=r"choose the threshold 2\.5000"):
        PROMISE.recount(shopped, seen, GROUND)
    fixed = ExitPromise(share=1.0, early="early", threshold=1.5)
    fixed.recount(fixed.fulfil(seen, GROUND), seen, GROUND)
    with pytest.raises(CertificateError, match=r"was fixed at 1\.5"):
        fixed.bound(PROMISE.fulfil(seen, GROUND), GROUND)


def test_within_rounding_of_the_threshold_no_certifying_example_chooses() -> None:
    class Parted(Written):
        def early(self, point: str) -> Early | None:
            return Early(DIGEST, 2**53, self._early, near)

    seen = Parted(answers((0.5, False), (1.0, True), (2.0, False), (3.0, True)), RIGHT)
    near = answers((0.5, True), (1.0, True), (2.4995, True), (3.0, True))
    honest = PROMISE.fulfil(seen, GROUND)
    assert (honest.threshold, honest.goes_on) == (2.5, 3)
    assert PROMISE.recount(honest, seen, GROUND) is None
    # What changes no count may be another machine's rounding, or its signer's wish.
    assert PROMISE.recount(PROMISE.count(seen, 2.500_001, GROUND), seen, GROUND) is None
    left = PROMISE.recount(PROMISE.count(seen, 2.5002, GROUND), seen, GROUND)
    assert left is not None
    assert "chose the threshold 2.50020 of the promise 'exit'" in left
    shopped = PROMISE.count(seen, 2.4992, GROUND)
    assert shopped.goes_on == 2
    with pytest.raises(CertificateError, match=r"gives less than 2\.4992"):
        PROMISE.recount(shopped, seen, GROUND)


def test_where_all_certify_the_thresholds_are_fixed_and_paid_for() -> None:
    ground = replace(GROUND, chosen_on=0)
    outcome = PROMISE.count(Written(RIGHT, RIGHT), None, ground)
    assert outcome.wrong_at_most == binomial_upper_bound(0, 4, 0.025 / 8)
    with pytest.raises(CertificateError, match="none of those that are paid for"):
        PROMISE.bound(replace(outcome, threshold=0.7), ground)


def test_an_outcome_without_an_early_adapter_says_nothing() -> None:
    silent = ExitOutcome()
    assert PROMISE.bound(silent, GROUND) == silent
    assert not PROMISE.gives(silent)
    assert "says nothing" in PROMISE.words(silent, GROUND)
    with pytest.raises(CertificateError, match="wrong of an early adapter that has no name"):
        PROMISE.bound(replace(silent, wrong=0), GROUND)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"points": ("a",)}, "two or more"),
        ({"points": ("a", "a")}, "two or more"),
        ({"points": "ab"}, "must be an array"),
        ({"points": ("a", "b/c")}, "names no operating point"),
        ({"point": "c"}, "is none of a, b"),
        ({"delta": 1.0}, "between 0 and 1"),
    ],
)
def test_points_that_cannot_be_are_refused(changed: dict[str, Any], said: str) -> None:
    terms: dict[str, Any] = {"points": ("a", "b"), "point": "a", "delta": 0.05}
    made = PointsPromise(**terms)
    assert promises_from([made.to_config()]) == (made,)
    with pytest.raises(CertificateError, match=said):
        PointsPromise(**(terms | changed))


def test_points_of_one_family_share_what_they_have_in_common() -> None:
    one, other = (PointsPromise(points=("a", "b"), point=name, delta=0.05) for name in "ab")
    assert one.family == other.family
    assert one.family != replace(one, delta=0.04).family
    assert one.family != replace(one, points=("b", "a")).family
    with pytest.raises(CertificateError, match=r"more than 0\.05 in all"):
        one.check_delta(0.026)
    one.check_delta(0.025)
