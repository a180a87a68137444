"""The figure of merit is not flattered by choosing among many."""

from __future__ import annotations

import numpy as np
import pytest

from fedcert.priors import best_of, risk_profile
from fedcert.randomness import keyed_generator


def test_the_best_of_equals_is_not_flattered() -> None:
    """A thousand candidates all of risk .15 look like .074 to the naive minimum."""
    wrong = keyed_generator("constants").random((20, 1000, 200)) < 0.15
    assert np.mean([table.mean(axis=1).min() for table in wrong]) < 0.085
    estimates = [best_of(table, [1000])[0] for table in wrong]
    # Four standard errors of a mean over 20 draws of 200 examples.
    assert np.mean(estimates) == pytest.approx(0.15, abs=4 * (0.15 * 0.85 / 200 / 20) ** 0.5)


def test_a_candidate_that_is_better_is_found() -> None:
    wrong = keyed_generator("one better").random((100, 400)) < 0.4
    wrong[60] = keyed_generator("the better").random(400) < 0.1
    before, after = best_of(wrong, [60, 61])
    assert before == pytest.approx(0.4, abs=0.06)
    assert after == wrong[60].mean()


def test_best_of_by_hand() -> None:
    wrong = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 1]], dtype=bool)
    # Halves: risks (1, 0), (0, 1), (.5, .5); each half's best is the other's worst.
    assert best_of(wrong, [1, 2, 3]) == [0.5, 1.0, 1.0]


def test_the_profile_counts_candidates_at_or_below() -> None:
    wrong = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]], dtype=bool)
    profile = risk_profile(wrong, np.array([-0.1, 0.0, 0.24, 0.25, 0.5, 1.0]))
    np.testing.assert_array_equal(profile, [0, 0.25, 0.25, 0.5, 1, 1])
