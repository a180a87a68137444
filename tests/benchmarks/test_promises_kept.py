"""Which threshold clients who plan give to those who come."""

from __future__ import annotations

import numpy as np
import pytest

from fedcert.certificates import AbstentionPromise, Answers, Choice, SplitRecipe
from fedcert.certificates.promises.thresholds import best_threshold
from fedcert.simulations.benchmarks.promises_kept import Alone, planned_threshold
from fedcert.simulations.benchmarks.promises_page import promises_page

RECIPE = SplitRecipe(candidates=1, delta=0.025, choose_fraction=0.25)
N, TRIALS = 64, 48


def _answers(levels: dict[float, tuple[int, int]]) -> Answers:
    """Return answers by margin: how many, and how many of them are wrong."""
    logits, labels = [], []
    for margin, (count, wrong) in levels.items():
        logits += [(margin, 0.0)] * count
        labels += [1] * wrong + [0] * (count - wrong)
    return Answers(np.array(logits), np.array(labels))


def _promised(answers: Answers, threshold: float) -> float | None:
    promise = AbstentionPromise(share=1.0, threshold=threshold)
    ground = RECIPE.ground(promise, Choice(index=0), N)
    return promise.fulfil(Alone(answers), ground).wrong_at_most


def _planned(*planners: Answers, most_wrong: float) -> float:
    seen = [(answers, Choice(index=0)) for answers in planners]
    return planned_threshold(RECIPE, seen, N, most_wrong=most_wrong)


def test_of_thresholds_that_promise_enough_the_one_that_answers_most_is_taken() -> None:
    # Above 1.0 nothing is wrong; higher ones promise as much of fewer answers.
    answers = _answers({0.8: (8, 6), 2.2: (10, 0), 8.0: (30, 0)})
    assert _promised(answers, 1.0) == pytest.approx(0.1038, abs=1e-4)
    assert _planned(answers, answers, most_wrong=0.11) == 1.0
    # A looser goal is reached by answering more.
    everything = _promised(answers, 0.0)
    assert everything is not None
    assert _planned(answers, most_wrong=everything) == 0.0


def test_where_none_promises_enough_it_is_the_nearest() -> None:
    answers = _answers({0.3: (10, 8), 1.2: (12, 1), 2.2: (26, 0)})
    found = _planned(answers, most_wrong=0.05)
    bounds = {t: _promised(answers, t) for t in (0.0, 0.5, 1.5, 2.0, 3.0)}
    assert found == 1.5
    assert all(bound is None or bound >= bounds[1.5] for bound in bounds.values())  # type: ignore[operator]


def test_a_planner_that_is_promised_nothing_counts_as_wrong() -> None:
    # Its head is small, and so are its margins: a high threshold silences it.
    bold = _answers({0.8: (20, 4), 5.0: (28, 0)})
    meek = _answers({0.4: (10, 3), 0.9: (38, 1)})
    assert _promised(meek, 1.0) is None
    assert _planned(bold, most_wrong=0.05) == 1.0
    assert _planned(bold, meek, most_wrong=0.05) == 0.5


def test_one_that_promises_some_clients_enough_does_not_stand_for_all() -> None:
    # At 1.0 one planner reaches the goal and the other is silent; at 0.0 both nearly do.
    first = _answers({0.8: (4, 1), 2.0: (44, 0)})
    second = _answers({0.8: (48, 1)})
    goal = _promised(first, 1.0)
    assert goal is not None
    assert _promised(second, 1.0) is None
    assert _planned(first, second, most_wrong=goal) == 0.0


def test_nothing_to_choose_from() -> None:
    assert best_threshold({}, 0.1) is None
    assert best_threshold({2.0: 0.3, 1.0: 0.3}, 0.1) == 1.0


def test_the_page_says_what_the_wanted_error_takes() -> None:
    said = {"wrong_at_most": 0.3, "answered_at_least": 0.5}
    row = {"promise": "abstention", "scenario": "s", "n": N, "recipe": "r", "said": said,
           "true_wrong": 0.1, "true_answered": 0.7, "certificate": 0.4}  # fmt: skip
    fixed = {"most_wrong": 0.1, "threshold": 1.5}
    page = promises_page(
        {"command": "c", "seeds": [0], "machine": {}, "delta": 0.05,
         "kept": [row | {"terms": fixed}, row | {"terms": {"most_wrong": 0.2}}]}
    )  # fmt: skip
    # One answer less would promise .1025: 1 - .0125 ** (1 / 41).
    assert "| by planners: 1.5 | 0.1 | 42 | 0.300 |" in page
    assert "| by the choosing examples | 0.2 | 20 | 0.300 |" in page
