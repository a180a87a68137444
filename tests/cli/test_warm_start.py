"""``fedcert warm-start``: what it says in the end, and what it refuses beforehand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from simulations.federation import SCENARIO, UPSTREAM

from cli.conftest import Run
from fedcert.cli.running import settings_of
from fedcert.models import load_base_model

TINY = [
    "warm-start",
    SCENARIO,
    "--runner=inprocess",
    "--set=adapter.rank=2",
    "--set=training.steps=2",
    "--set=warm_start.rounds=2",
    "--set=warm_start.steps=1",
    "--set=warm_start.personal_steps=1",
    "--set=warm_start.held_out=0.5",
    "--set=warm_start.rank=2",
]
PRIVATE = ["--set=warm_start.epsilon=8", "--set=warm_start.weights=equal"]


@pytest.mark.parametrize(
    ("more", "outcome"),
    [
        ([], r"the loss after personal steps went from [\d.]+ to [\d.]+ nats"),
        (PRIVATE, r"epsilon 8 at delta_p = 1e-05 for replacing one client's examples"),
    ],
)
def test_it_ends_with_the_new_base_model(
    run: Run, tmp_path: Path, more: list[str], outcome: str
) -> None:
    shown = run(*TINY, *more, "--output", str(tmp_path / "run"))
    assert shown.code == 0, shown.err
    said = " ".join(shown.out.split())
    assert re.search(rf"2 rounds, {UPSTREAM} clients: {outcome}", said), said
    found = re.search(r"digest: ([0-9a-f]{64}) \(before: ([0-9a-f]{64})\)", said)
    assert found is not None
    [folder] = (tmp_path / "run" / "warm-start").glob("base-*")
    assert load_base_model(str(folder)).digest == found[1] != found[2]


def test_a_budget_that_cannot_do_is_refused_before_anybody_trains(
    run: Run, tmp_path: Path
) -> None:
    shown = run(*TINY, *PRIVATE, "--set=privacy.budget=5", "--output", str(tmp_path / "run"))
    assert shown.code == 1
    assert "privacy.budget" in shown.err
    assert "epsilon of 8" in shown.err
    assert not (tmp_path / "run").exists()


def test_a_promise_about_rounds_needs_rounds(run: Run, tmp_path: Path) -> None:
    """It was passed over in silence: nobody who asks for noise may get none."""
    out = str(tmp_path / "run")
    shown = run("simulate", SCENARIO, "--runner=inprocess", *PRIVATE, "--output", out)
    assert shown.code == 1
    assert "setting 'warm_start.epsilon'" in shown.err
    assert "set warm_start.rounds" in " ".join(shown.err.split())
    assert not Path(out).exists()


def test_without_a_number_there_are_ten_rounds(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[warm_start]\nrounds = 3\nepsilon = 8.0\nweights = 'equal'\n")

    def rounds(settings: Path | None, *overrides: str) -> int:
        ten = {"warm_start.rounds": 10}
        return settings_of(None, settings, overrides, otherwise=ten).warm_start.rounds

    assert rounds(None, *(word.removeprefix("--set=") for word in PRIVATE)) == 10
    assert rounds(file) == 3
    assert rounds(file, "warm_start.rounds=0") == 10
    assert rounds(file, "warm_start.rounds=2") == 2
