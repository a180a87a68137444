"""Latent coordinates, and how many of them a pool has."""

from __future__ import annotations

import numpy as np
import pytest

from fedcert.errors import PriorError
from fedcert.priors import LatentSpace
from fedcert.priors.components import independent_directions
from fedcert.priors.latent_size import latent_size, noise_values, spectral_gap
from fedcert.randomness import keyed_generator

from .pools import DIMENSION, DIRECTIONS, cube_pool, gaussian_pool


@pytest.mark.parametrize(
    ("values", "size"),
    [
        ([9, 8, 7, 1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2], 3),
        ([100, 8, 7, 6, 5, 4, 3, 2, 1, 0.5, 0.2, 0.1], 1),
        ([5, 4.9, 1e-14, 1e-15, 0, 0, 0, 0, 0], 2),
        # Beyond the first third every spectrum falls steeply.
        ([9, 8.8, 8.6, 8.4, 3.9, 3.8, 3.7, 3.6, 1, 0.01, 1e-5, 1e-12], 4),
        ([9, 8, 7.9, 7.8, 7.7, 7.6, 7.5, 7.4, 1e-3, 1e-4, 1e-5, 1e-9], 1),
        ([3.0], 1),
    ],
)
def test_the_gap_of_known_spectra(values: list[float], size: int) -> None:
    assert spectral_gap(np.array(values, dtype=float)) == size


@pytest.mark.parametrize("shape", [(40, 400), (400, 40), (60, 60)])
def test_the_spectrum_of_noise_is_foreseen(shape: tuple[int, int]) -> None:
    draws = [
        np.linalg.svd(keyed_generator("noise", i).standard_normal(shape), compute_uv=False)
        for i in range(30)
    ]
    expected = noise_values(*shape)
    np.testing.assert_allclose(np.mean(draws, axis=0), expected, atol=0.03 * expected[0])


def test_without_a_gap_the_size_is_what_stands_out_of_the_noise() -> None:
    """A steadily falling spectrum of signal, as few adapters give it."""
    generator = keyed_generator("no gap")
    signal = generator.standard_normal((40, 8)) * 1.2 ** -np.arange(8.0)
    pool = signal @ generator.standard_normal((8, 600)) + generator.standard_normal((40, 600))
    values = np.linalg.svd((pool - pool.mean(0)) / pool.std(0), compute_uv=False)
    assert abs(latent_size(values, count=40, dimension=600) - 8) <= 1
    noise = generator.standard_normal((40, 600))
    values = np.linalg.svd((noise - noise.mean(0)) / noise.std(0), compute_uv=False)
    assert latent_size(values, count=40, dimension=600) <= 3


@pytest.mark.parametrize("pool", [cube_pool(96), gaussian_pool(96)], ids=["cube", "gauss"])
def test_the_size_of_a_pool_is_found(pool: np.ndarray) -> None:
    latent = LatentSpace.of(pool)
    assert (latent.size, latent.dimension) == (DIRECTIONS, DIMENSION)


def test_latents_of_the_pool_are_white_and_decode_back() -> None:
    pool = gaussian_pool(64)
    latent = LatentSpace.of(pool)
    latents = latent.encode(pool)
    np.testing.assert_allclose(latents.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(latents.T @ latents / 64, np.eye(DIRECTIONS), atol=1e-12)
    np.testing.assert_allclose(latent.encode(latent.decode(latents)), latents, atol=1e-12)
    # What the latents lose is the noise off the directions.
    lost = latent.decode(latents) - pool
    assert np.sqrt(np.mean(lost**2)) < 0.06


def test_a_coordinate_that_never_varies_stays_put() -> None:
    """Its mean is rounded, so that its computed deviation need not be zero."""
    pool = gaussian_pool(64)
    constant = np.hstack([np.full((64, 3), 0.1), np.zeros((64, 1)), pool])
    latent, plain = LatentSpace.of(constant), LatentSpace.of(pool)
    assert latent.size == plain.size
    np.testing.assert_allclose(
        np.abs(latent.encode(constant)), np.abs(plain.encode(pool)), atol=1e-9
    )
    np.testing.assert_allclose(latent.decode(np.ones((2, 6)))[:, :3], 0.1, rtol=1e-12)


def test_a_pool_of_equal_adapters_is_refused() -> None:
    with pytest.raises(PriorError, match="the pool does not span 1 latent directions"):
        LatentSpace.of(np.full((8, 5), 0.3))


def test_more_directions_than_the_pool_spans_are_refused() -> None:
    with pytest.raises(PriorError, match="the pool does not span 8 latent directions"):
        LatentSpace.of(gaussian_pool(8), size=8)


def test_independent_directions_find_a_rotated_cube() -> None:
    generator = keyed_generator("rotated cube")
    rotation = np.linalg.qr(generator.standard_normal((5, 5)))[0]
    latents = generator.choice([-1.0, 1.0], (200, 5)) @ rotation
    latents += 0.05 * generator.standard_normal(latents.shape)
    found = independent_directions(latents, generator=generator)
    np.testing.assert_allclose(found @ found.T, np.eye(5), atol=1e-9)
    # Each found direction is one axis of the cube, up to order and sign.
    alike = np.abs(found @ rotation.T)
    np.testing.assert_array_equal(np.sort(alike.argmax(axis=1)), np.arange(5))
    assert alike.max(axis=1).min() > 0.99
