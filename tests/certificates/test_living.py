"""The living bound: true at all times at once, whatever the start was paid for."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import betaincc
from scipy.stats import binom, binomtest

from fedcert.certificates import WEIGHT_DENOMINATOR, binomial_upper_bound, uniform_weight
from fedcert.certificates.living import Start, _log_mixture
from fedcert.randomness import keyed_generator

EPISODES, LOOKS, DELTA = 10_000, 200, 0.05
FULL = WEIGHT_DENOMINATOR


def _start(errors: int, trials: int, candidates: int = 1) -> Start:
    weight = uniform_weight(candidates)
    return Start(
        errors=errors,
        trials=trials,
        weight=weight,
        fresh=0.0 if candidates == 1 else 0.5,
        bound=binomial_upper_bound(errors, trials, DELTA / 2 / candidates),
        delta=DELTA,
    )


@cache
def _episodes(
    risk: float, trials: int, candidates: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draw the errors of the best of M on m examples, and the running ones of spot checks."""
    generator = keyed_generator("living", candidates)
    best = generator.binomial(trials, risk, size=(EPISODES, candidates)).min(axis=1)
    wrong = generator.random((EPISODES, LOOKS)) < risk
    running = np.concatenate([np.zeros((EPISODES, 1), int), wrong.cumsum(axis=1)], axis=1)
    return best, running


def _ever_false(start: Start, running: npt.NDArray[np.int64], risk: float) -> int:
    """Count episodes in which a bound is below the risk at some look: then somebody stops."""
    if start.bound < risk:
        return len(running)
    errors, trials = np.meshgrid(
        np.arange(running.max() + 1), np.arange(LOOKS + 1), indexing="ij"
    )
    # The evidence follows from the counts: one table serves all episodes.
    table = start.log_wealth(np.minimum(errors, trials), trials, risk)
    wealth = table[running, np.arange(LOOKS + 1)]
    return int((wealth.max(axis=1) >= math.log(2 / DELTA)).sum())


CASES = [(0.2, 16, 1), (0.05, 64, 1), (0.3, 24, 1000), (0.5, 40, 100)]


def _violations(case: tuple[float, int, int], **mutant: float) -> int:
    risk, trials, candidates = case
    best, running = _episodes(risk, trials, candidates)
    starts = {int(k): replace(_start(int(k), trials, candidates), **mutant) for k in set(best)}
    return sum(_ever_false(each, running[best == k], risk) for k, each in starts.items())


def _excess(count: int) -> float:
    return float(binomtest(count, EPISODES, DELTA, alternative="greater").pvalue)


@pytest.mark.parametrize("case", CASES)
def test_no_more_than_delta_are_ever_false(case: tuple[float, int, int]) -> None:
    assert _excess(_violations(case)) > 1e-3


@pytest.mark.parametrize("case", CASES[2:])
def test_a_start_that_does_not_pay_for_the_choice_is_caught(
    case: tuple[float, int, int],
) -> None:
    assert _excess(_violations(case, weight=FULL, fresh=0.0)) < 1e-6


@pytest.mark.parametrize("case", CASES[:2])
def test_a_bound_for_one_look_that_is_looked_at_often_is_caught(
    case: tuple[float, int, int],
) -> None:
    risk, trials, candidates = case
    best, running = _episodes(risk, trials, candidates)
    errors = best[:, None] + running
    right = trials + np.arange(LOOKS + 1) - errors
    # The exact bound at delta is below the risk where the tail at the risk is below delta.
    tails = betaincc(errors + 1, np.maximum(right, 1), risk)
    ever = ((tails < DELTA) & (right > 0)).any(axis=1)
    assert _excess(int(ever.sum())) < 1e-6


@pytest.mark.parametrize("risk", [0.05, 0.3, 0.9])
def test_the_evidence_is_an_e_value_exactly(risk: float) -> None:
    k = np.arange(10)
    wealth = np.exp(_log_mixture(k, np.full(10, 9), risk))
    assert float(binom.pmf(k, 9, risk) @ wealth) == pytest.approx(1.0, abs=1e-12)
    assert float(binom.pmf(k, 9, (1 + risk) / 2) @ wealth) < 1


@pytest.mark.parametrize(("errors", "candidates"), [(0, 1), (6, 1), (3, 1000)])
def test_a_bound_is_the_first_step_with_enough_evidence(errors: int, candidates: int) -> None:
    start = replace(_start(errors, 32, candidates), bound=1.0)
    trials = np.repeat(np.arange(1, 200, 7), 3)
    counts = (trials * np.tile([0.0, 0.1, 0.5], len(trials) // 3)).astype(np.int64)
    bounds = start.bounds(counts, trials)
    needed = math.log(2 / DELTA)
    assert (start.log_wealth(counts, trials, bounds) >= needed).all()
    assert (start.log_wealth(counts, trials, bounds - 2e-6) < needed).all()
    # From there on every risk is refuted as well.
    for part in (0.25, 0.5, 0.75, 0.99):
        assert (start.log_wealth(counts, trials, bounds + part * (1 - bounds)) >= needed).all()


def test_spot_checks_tighten_it_and_the_start_never_looks_worse() -> None:
    start = _start(6, 64)
    trials = np.array([0, 50, 200, 1000])
    first, *rest = start.bounds(trials // 10, trials)
    assert first == start.bound
    assert rest == sorted(rest, reverse=True)
    assert rest[-1] < 0.135
    assert start.bounds(trials[1:], trials[1:]).tolist() == [start.bound] * 3
