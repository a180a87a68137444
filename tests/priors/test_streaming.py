"""A streaming fit gives the latent space of the whole pool."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from fedcert.errors import PriorError
from fedcert.priors import LatentSpace
from fedcert.priors.streaming import MOST_COORDINATES, Moments, latent_from_chunks
from fedcert.randomness import keyed_generator

from .pools import cube_pool, gaussian_pool


def _agree(ours: LatentSpace, theirs: LatentSpace, tolerance: float = 1e-9) -> None:
    assert ours.size == theirs.size
    for name, array in theirs.tensors().items():
        np.testing.assert_allclose(ours.tensors()[name], array, rtol=0, atol=tolerance)


@pytest.mark.parametrize("parts", [1, 2, 7, 96])
@pytest.mark.parametrize("pool", [cube_pool(96), gaussian_pool(96)], ids=["cube", "gauss"])
def test_it_is_that_of_the_whole_pool(pool: np.ndarray, parts: int) -> None:
    _agree(latent_from_chunks(np.array_split(pool, parts)), LatentSpace.of(pool))
    _agree(
        latent_from_chunks(np.array_split(pool, parts), size=2), LatentSpace.of(pool, size=2)
    )


def test_more_coordinates_than_adapters() -> None:
    pool = gaussian_pool(24)
    _agree(latent_from_chunks(np.array_split(pool, 5)), LatentSpace.of(pool))
    with pytest.raises(PriorError, match="does not span 24 latent directions"):
        latent_from_chunks([pool], size=24)


def test_a_mean_far_from_zero_loses_nothing() -> None:
    """Sums of squares about zero would leave no digit of the variance."""
    pool = gaussian_pool(96)
    moved = latent_from_chunks(np.array_split(pool + 1e7, 6))
    theirs = LatentSpace.of(pool)
    np.testing.assert_allclose(moved.scale, theirs.scale, rtol=1e-6)
    np.testing.assert_allclose(moved.directions, theirs.directions, atol=1e-5)


def test_a_coordinate_that_never_varies_stays_put() -> None:
    pool = np.hstack([np.full((64, 3), 0.1), gaussian_pool(64)])
    _agree(latent_from_chunks(np.array_split(pool, 9)), LatentSpace.of(pool))


def test_empty_chunks_do_not_matter() -> None:
    pool = gaussian_pool(64)
    empty = np.empty((0, pool.shape[1]))
    _agree(latent_from_chunks([empty, pool[:9], empty, pool[9:]]), LatentSpace.of(pool))


@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        ([], "the pool is empty"),
        ([np.ones((1, 4))], "1 adapters are too few"),
        ([np.ones((3, 4)), np.ones((3, 5))], "a finite matrix with 4 columns"),
        ([np.ones((3, 4)), np.full((3, 4), np.nan)], "a finite matrix with 4 columns"),
        ([np.ones((3, 4)), np.ones(4)], "a finite matrix with 4 columns"),
        ([np.ones((5, 4))], "does not span 1 latent directions"),
    ],
)
def test_what_is_no_pool_is_refused(chunks: list[np.ndarray], text: str) -> None:
    with pytest.raises(PriorError, match=text):
        latent_from_chunks(chunks)


def test_too_many_coordinates_are_refused_before_memory_is_taken() -> None:
    with pytest.raises(PriorError, match=f"d = {MOST_COORDINATES + 1} is above"):
        Moments(MOST_COORDINATES + 1)


def test_memory_does_not_grow_with_the_pool() -> None:
    def chunks(count: int) -> Iterator[np.ndarray]:
        generator = keyed_generator("streaming")
        mixing = generator.standard_normal((5, 80))
        for _ in range(count):
            noise = 0.1 * generator.standard_normal((250, 80))
            yield generator.standard_normal((250, 5)) @ mixing + noise

    peaks = []
    for count in (2, 80):
        tracemalloc.start()
        assert latent_from_chunks(chunks(count)).size == 5
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
