"""Randomness follows from seeds and words alone."""

from __future__ import annotations

import random

import numpy as np
import pytest

from fedcert.randomness import (
    candidate_noise,
    derive_seed,
    fresh_seed,
    keyed_generator,
    keyed_signs,
    small_seed,
)

SEED = "0123456789abcdef" * 4


def test_words_are_not_simply_joined() -> None:
    assert derive_seed("ab", "c") != derive_seed("a", "bc")
    assert derive_seed("a", "") != derive_seed("a")
    assert len(derive_seed("a")) == 64


def test_small_seeds_fit_63_bits() -> None:
    seeds = {small_seed("word", index) for index in range(500)}
    assert len(seeds) == 500
    assert 2**62 < max(seeds) < 2**63
    assert min(seeds) >= 0


def test_fresh_seeds_differ() -> None:
    first, second = fresh_seed(), fresh_seed()
    assert first != second
    assert len(first) == len(second) == 64
    assert set(first + second) <= set("0123456789abcdef")


def test_a_keyed_generator_depends_on_its_words_alone() -> None:
    first = keyed_generator("split", 3).random(5)
    np.random.seed(1)  # noqa: NPY002  (the global state must not matter)
    random.seed(1)
    np.testing.assert_array_equal(keyed_generator("split", 3).random(5), first)
    assert not np.array_equal(keyed_generator("split", 4).random(5), first)


@pytest.mark.parametrize("start", [0, 1, 6, 2**53 - 8])
def test_noise_of_a_candidate_depends_on_seed_and_index(start: int) -> None:
    whole = candidate_noise(SEED, start, 7, 5)
    single = [candidate_noise(SEED, start + row, 1, 5)[0] for row in range(7)]
    np.testing.assert_array_equal(whole, single)


def test_noise_of_a_wider_candidate_begins_the_same() -> None:
    wide = candidate_noise(SEED, 3, 2, 2000)
    np.testing.assert_array_equal(wide[:, :10], candidate_noise(SEED, 3, 2, 10))


def test_all_bits_of_the_seed_matter() -> None:
    first = candidate_noise(SEED, 0, 1, 4)
    for position in (0, 31, 63):
        other = SEED[:position] + "f0"[SEED[position] == "f"] + SEED[position + 1 :]
        assert not np.any(candidate_noise(other, 0, 1, 4) == first)


def test_noise_is_standard_normal_and_uncorrelated() -> None:
    noise = candidate_noise(SEED, 0, 4000, 5)
    # Five standard errors each.
    assert np.abs(noise.mean(axis=0)).max() < 5 / 4000**0.5
    assert np.abs(np.cov(noise.T) - np.eye(5)).max() < 5 * (2 / 4000) ** 0.5
    neighbors = np.mean(noise[:-1] * noise[1:], axis=0)
    assert np.abs(neighbors).max() < 5 / 4000**0.5


def test_the_numbers_are_a_contract() -> None:
    """A verifier redraws candidates years later: these may never change."""
    assert (
        derive_seed("a", 1)
        == "5aa758892c2a6c472e6d56515ab7e3773b1c49b9edc8ea0b2cd198618593427c"
    )
    expected = [-0.5427835892335832, -1.0910462180583238, -0.5046073469222997]
    np.testing.assert_allclose(candidate_noise(SEED, 2**40, 1, 3)[0], expected, rtol=1e-15)


def test_signs_are_the_generators_bits() -> None:
    """They are part of what adapters mean, so no version may draw others."""
    positive = (keyed_signs("word", 1, count=20) > 0).nonzero()[0]
    assert positive.tolist() == [0, 2, 3, 4, 6, 7, 11, 12, 13, 15, 17]
    np.testing.assert_array_equal(
        keyed_signs("word", 1, count=200)[:20], keyed_signs("word", 1, count=20)
    )
    many = keyed_signs("word", 2, count=10_001)
    assert set(many) == {-1, 1}
    assert abs(many.mean()) < 0.05
