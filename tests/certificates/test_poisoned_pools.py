"""Certificates from a poisoned pool: valid unless the poisoner has seen the examples."""

from __future__ import annotations

import pytest

from fedcert.simulations.benchmarks.episodes import excess
from fedcert.simulations.benchmarks.prior_poisoning import poisoning_rows

EPISODES = 400
SIGNIFICANCE = 1e-4


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return poisoning_rows(episodes=EPISODES, seed=3)


def _of(rows: list[dict], poisoner: str) -> list[dict]:
    found = [row for row in rows if row["poisoner"] == poisoner]
    assert {(row["prior"], row["recipe"]) for row in found} == {
        (prior, recipe) for prior in ("gaussian", "pool") for recipe in ("union", "split")
    }
    return found


@pytest.mark.parametrize("poisoner", ["none", "independent"])
def test_uploads_that_know_nothing_of_the_examples_do_no_harm(
    rows: list[dict], poisoner: str
) -> None:
    for row in _of(rows, poisoner):
        assert excess(row["violations"], EPISODES, row["delta"]) >= SIGNIFICANCE, row


def test_uploads_that_fit_the_very_examples_make_certificates_false(rows: list[dict]) -> None:
    for row in _of(rows, "has seen the examples"):
        assert row["violations"] > 0.9 * EPISODES
        # Tight and wrong: worse than no certificate.
        assert row["mean_certificate"] < 0.5 * row["mean_risk"]


def test_rows_can_be_repeated() -> None:
    first, again = (poisoning_rows(episodes=3, priors=["pool"]) for _ in range(2))
    assert first == again
