"""Synthetic pools of known shape."""

from __future__ import annotations

import numpy as np

from fedcert.randomness import keyed_generator

DIRECTIONS, DIMENSION, NOISE = 6, 40, 0.05
# What latents of 6 directions become in an adapter space of 40, around this center.
MIXING = keyed_generator("pools/mixing").standard_normal((DIRECTIONS, DIMENSION))
CENTER = keyed_generator("pools/center").standard_normal(DIMENSION)


def cube_pool(count: int, *, seed: int = 0) -> np.ndarray:
    """Draw adapters at the corners of a cube, plus a little noise off it."""
    generator = keyed_generator("pools/cube", seed)
    return _adapters(generator.choice([-1.0, 1.0], (count, DIRECTIONS)), generator)


def gaussian_pool(count: int, *, seed: int = 0) -> np.ndarray:
    """Draw adapters whose latents are normal."""
    generator = keyed_generator("pools/gaussian", seed)
    return _adapters(generator.standard_normal((count, DIRECTIONS)), generator)


def corner_distances(adapters: np.ndarray) -> np.ndarray:
    """Return the distance of each adapter's latents to the nearest corner of the cube."""
    latents = (adapters - CENTER) @ np.linalg.pinv(MIXING)
    return np.linalg.norm(latents - np.sign(latents), axis=1)


def _adapters(latents: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    noise = NOISE * generator.standard_normal((len(latents), DIMENSION))
    return CENTER + latents @ MIXING + noise
