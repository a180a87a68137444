"""Independent components: directions along which the pool looks least Gaussian."""

from __future__ import annotations

import numpy as np

from fedcert.arrays import FloatArray

__all__ = ["independent_directions", "orthonormal"]


def independent_directions(
    latents: FloatArray,
    *,
    generator: np.random.Generator,
    iterations: int = 300,
    tolerance: float = 1e-6,
) -> FloatArray:
    """Find independent components by symmetric FastICA (Hyvarinen 1999) with kurtosis.

    Tasks that differ by yes-or-no attributes put adapters near the corners of a box whose
    axes are not the principal ones: whitened principal directions are arbitrary up to a
    rotation, and this finds the rotation. Where there is no such structure any rotation
    serves as well as another.

    Parameters
    ----------
    latents : numpy.ndarray
        Shape ``(N, q)``.
    generator : numpy.random.Generator
        Draws the start.
    iterations : int (default: 300)
        Iterations at most.
    tolerance : float (default: 1e-6)
        Stop when every direction's cosine with its predecessor is within this of one.

    Returns
    -------
    numpy.ndarray
        Orthonormal rows, shape ``(q, q)``.
    """
    centered = latents - latents.mean(axis=0)
    _, values, right = np.linalg.svd(centered, full_matrices=False)
    # A part of a whitened pool is not quite white itself.
    floor = np.maximum(values, 1e-6 * values[0])
    white = (centered @ right.T / floor * len(latents) ** 0.5) @ right
    size = latents.shape[1]
    directions = orthonormal(generator.standard_normal((size, size)))
    for _ in range(iterations):
        sources = white @ directions.T
        moved = orthonormal((sources**3).T @ white / len(white) - 3 * directions)
        change = np.max(np.abs(np.abs(np.sum(moved * directions, axis=1)) - 1))
        directions = moved
        if change < tolerance:
            break
    return directions


def orthonormal(matrix: FloatArray) -> FloatArray:
    """Return the nearest orthonormal matrix."""
    left, _, right = np.linalg.svd(matrix)
    return np.asarray(left @ right)
