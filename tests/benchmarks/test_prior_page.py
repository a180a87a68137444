"""Tests for the page of priors, whose record has the keys of several benchmarks."""

from __future__ import annotations

import pytest

from fedcert.simulations.benchmarks.prior_page import prior_page
from fedcert.simulations.benchmarks.publishing import page_of, record_of


@pytest.fixture(scope="module")
def page() -> str:
    about = {"machine": {"cores": 1, "cpu": "a processor"}, "missing": {}, "table": []}
    audit = {
        "scenario": "digits", "pool": 32, "prior": "diffusion", "nn_ratio": 1.0,
        "replication_p": 0.5, "mia_attack": "nearest sample", "mia_advantage": 0.8,
        "mia_upper": 0.9, "passed": True,
    }  # fmt: skip
    measured = {"m": 1000, "risk": 0.1, "se": 0.01, "n": 64, "certificate": 0.2001}
    private = {"scenario": "digits", "pool": 128, "prior": "diffusion", **measured}
    noised = {"epsilon": 10.0, "delta_p": 1e-5, "clip": 2.5, "noise_deviation": 0.5}
    rows = [private | {"epsilon": None}, private | noised]
    return prior_page(about | {"audit": [audit], "privacy": rows})


def test_an_advantage_is_said_as_the_share_of_pairs_that_are_told_apart(page: str) -> None:
    # (1 + 0.8) / 2 of the pairs: 18 of 20.
    assert "| nearest sample | 0.900 | 0.950 | 18.0 | yes |" in page
    assert "false positive" not in page
    assert "mia" not in page


def test_headings_are_words_and_bounds_are_rounded_up(page: str) -> None:
    assert "| candidates (M) | risk (share of wrong labels) | labels (n) |" in page
    assert "| 1,000 | 0.100 ± 0.010 | 64 | 0.201 | none |  |  |  |" in page
    assert "| 1,000 | 0.100 ± 0.010 | 64 | 0.201 | 10 | 1e-05 | 2.500 | 0.500 |" in page
    assert " se |" not in page


def test_the_page_defines_what_it_compares(page: str) -> None:
    assert "of the *best of M*: M candidates are drawn" in page
    assert "* *jitter*: an adapter of the pool, drawn at random, plus Gaussian noise." in page


def test_the_page_is_rendered_from_the_record() -> None:
    assert prior_page(record_of("prior")) == page_of("prior.md")
