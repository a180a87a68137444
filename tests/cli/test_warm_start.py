"""``fedcert warm-start``: what it says in the end, and what it refuses beforehand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from simulations.federation import SCENARIO, UPSTREAM

from cli.conftest import Run
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
