"""How clients train is chosen on upstream clients' own held-out examples."""

from __future__ import annotations

import pytest

from fedcert.scenarios import load_scenario
from fedcert.simulations import tuning
from fedcert.simulations.tuning import tuned
from simulations.federation import tiny_settings


def test_the_learning_rate_with_the_lowest_validation_loss_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = tiny_settings(training__tuned=True, training__learning_rate=1e-4)
    scenario = load_scenario(settings.scenario.name, settings.scenario.options)

    def refused(*_: object) -> None:
        raise AssertionError("a new client's examples were looked at")

    for name in ("support_examples", "test_examples"):
        monkeypatch.setattr(type(scenario), name, refused)
    monkeypatch.setattr(tuning, "_RATES", (1.0, 300.0))
    chosen = tuned(settings, scenario)
    assert chosen.training.learning_rate == pytest.approx(0.03)
    assert chosen.scenario == settings.scenario
    assert tuned(settings, scenario) == chosen


def test_who_does_not_ask_gets_what_the_settings_say() -> None:
    settings = tiny_settings()
    assert tuned(settings, load_scenario(settings.scenario.name, {})) is settings
