"""The living bound: true at all times at once, whatever the start was paid for."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from fedcert.certificates.living import _log_mixture
from fedcert.simulations.benchmarks.episodes import excess
from fedcert.simulations.benchmarks.living_episodes import (
    DELTA,
    WORLDS,
    World,
    false_living,
    start_at,
)

EPISODES = 10_000


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_no_more_than_delta_are_ever_false(world: World) -> None:
    count = false_living(world, EPISODES, seed=0)
    assert excess(count, EPISODES, DELTA) > 1e-3


@pytest.mark.parametrize("risk", [0.05, 0.3, 0.9])
def test_the_evidence_is_an_e_value_exactly(risk: float) -> None:
    k = np.arange(10)
    wealth = np.exp(_log_mixture(k, np.full(10, 9), risk))
    assert float(binom.pmf(k, 9, risk) @ wealth) == pytest.approx(1.0, abs=1e-12)
    assert float(binom.pmf(k, 9, (1 + risk) / 2) @ wealth) < 1


@pytest.mark.parametrize(("errors", "candidates"), [(0, 1), (6, 1), (3, 1000)])
def test_a_bound_is_the_first_step_with_enough_evidence(errors: int, candidates: int) -> None:
    start = replace(start_at(errors, 32, candidates), bound=1.0)
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
    start = start_at(6, 64)
    trials = np.array([0, 50, 200, 1000])
    first, *rest = start.bounds(trials // 10, trials)
    assert first == start.bound
    assert rest == sorted(rest, reverse=True)
    assert rest[-1] < 0.135
    assert start.bounds(trials[1:], trials[1:]).tolist() == [start.bound] * 3
