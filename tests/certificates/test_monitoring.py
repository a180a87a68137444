"""The drift watch: false alarms, power, and what it keeps."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from scipy.stats import binomtest

from fedcert.certificates.monitoring import RiskWatch, _rates
from fedcert.errors import CertificateError, SettingsError
from fedcert.randomness import keyed_generator

STREAMS, LENGTH = 4000, 1000


def _alarms(bound: float, alpha: float, risk: float, *, seed: int) -> tuple[int, float]:
    """Count streams with an alarm, all at once; also the median time of the alarms."""
    wrong = keyed_generator("watch", seed).uniform(size=(STREAMS, LENGTH)) < risk
    errors = np.cumsum(wrong, axis=1)
    trials = np.arange(1, LENGTH + 1)
    # The wealth follows from the counts: one table serves all streams.
    table = np.full((LENGTH + 1, LENGTH + 1), -np.inf)
    rates = _rates(bound)
    for n in trials:
        k = np.unique(errors[:, n - 1])
        logs = np.outer(k, np.log(rates / bound)) + np.outer(
            n - k, np.log1p(-rates) - math.log1p(-bound)
        )
        top = logs.max(axis=1)
        table[k, n] = top + np.log(np.exp(logs - top[:, None]).mean(axis=1))
    wealth = table[errors, trials]
    ever = wealth >= -math.log(alpha)
    times = np.argmax(ever, axis=1)[ever.any(axis=1)]
    return int(ever.any(axis=1).sum()), float(np.median(times)) if len(times) else math.inf


@pytest.mark.parametrize(("bound", "alpha"), [(0.1, 0.05), (0.3, 0.2), (0.02, 0.1)])
def test_false_alarms_at_risk_exactly_the_bound(bound: float, alpha: float) -> None:
    count, _ = _alarms(bound, alpha, bound, seed=1)
    assert binomtest(count, STREAMS, alpha, alternative="greater").pvalue > 1e-3
    # The test has teeth: a watch that cheats a little more than twice is caught.
    cheating, _ = _alarms(bound, 4 * alpha, bound, seed=1)
    assert binomtest(cheating, STREAMS, alpha, alternative="greater").pvalue < 1e-3


@pytest.mark.parametrize("bound", [0.1, 0.2, 0.3])
def test_twice_the_bound_is_noticed_soon(bound: float) -> None:
    count, median = _alarms(bound, 0.05, 2 * bound, seed=2)
    assert count == STREAMS
    assert median < 150


@pytest.mark.parametrize("bound", [0.05, 0.3, 0.9])
def test_the_wealth_is_an_e_value_exactly(bound: float) -> None:
    # The expectation over all outcomes of nine examples at the risk B is 1.
    mean = 0.0
    for outcome in itertools.product([False, True], repeat=9):
        k = sum(outcome)
        watch = RiskWatch(bound=bound, alpha=0.05).updated(outcome)
        mean += bound**k * (1 - bound) ** (9 - k) * math.exp(watch.log_wealth)
    assert mean == pytest.approx(1.0, abs=1e-12)
    # One step further from any past, and at any smaller risk, it does not grow.
    past = RiskWatch(bound=bound, alpha=0.05, errors=5, trials=9)
    up, down = (math.exp(past.updated([w]).log_wealth) for w in (True, False))
    for risk in (bound, bound / 2, 0.0):
        assert risk * up + (1 - risk) * down <= math.exp(past.log_wealth) * (1 + 1e-12)


def test_an_alarm_is_raised_at_its_time_and_stays() -> None:
    watch = RiskWatch(bound=0.1, alpha=0.05).updated([True] * 3 + [False] * 200)
    assert watch.alarm_at in (2, 3)
    assert watch.alarmed
    assert watch.log_wealth < 0 < watch.peak
    assert watch.peak >= -math.log(0.05)


def test_how_the_examples_are_cut_into_calls_does_not_matter() -> None:
    wrong = list(keyed_generator("cuts").uniform(size=60) < 0.3)
    once = RiskWatch(bound=0.2, alpha=0.05).updated(wrong)
    state = RiskWatch(bound=0.2, alpha=0.05)
    for start in range(0, 60, 7):
        content = json.loads(json.dumps(state.to_object()))
        state = RiskWatch.from_object(content).updated(wrong[start : start + 7])
    assert state == once


def test_a_bound_of_one_claims_nothing_and_is_never_refuted() -> None:
    watch = RiskWatch(bound=1.0, alpha=0.5).updated([True] * 100)
    assert not watch.alarmed
    assert watch.log_wealth == 0


@pytest.mark.parametrize(
    "change", [{"bound": 0.0}, {"bound": 1.1}, {"alpha": 0.0}, {"alpha": 1.0}, {"errors": 1}]
)
def test_impossible_watches(change: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        RiskWatch(**({"bound": 0.1, "alpha": 0.05} | change))  # type: ignore[arg-type]
    whole = RiskWatch(bound=0.1, alpha=0.05).to_object()
    with pytest.raises(CertificateError, match=r"^watch: "):
        RiskWatch.from_object(whole | change)
