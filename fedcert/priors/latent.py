"""Latent coordinates: standardized adapters on their leading principal directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fedcert.arrays import FloatArray
from fedcert.errors import PriorError
from fedcert.priors.latent_size import latent_size

__all__ = ["LatentSpace"]


@dataclass(frozen=True)
class LatentSpace:
    """An affine map between adapters in R^d and whitened latents in R^q.

    Attributes
    ----------
    mean, scale : numpy.ndarray
        Shape ``(d,)``: the pool's mean and standard deviation of each coordinate.
    directions : numpy.ndarray
        Shape ``(q, d)``: orthonormal principal directions of the standardized pool.
    std : numpy.ndarray
        Shape ``(q,)``: the pool's standard deviation along each direction.
    """

    mean: FloatArray
    scale: FloatArray
    directions: FloatArray
    std: FloatArray

    @classmethod
    def of(cls, pool: FloatArray, *, size: int | None = None) -> Self:
        """Fit to a pool ``(N, d)``; `latent_size` finds the size unless given."""
        mean, scale = pool.mean(axis=0), pool.std(axis=0)
        # A coordinate that never varies (a bias that training left at zero) stays put. Its
        # mean is rounded, so the deviation of equal numbers need not be exactly zero.
        varies = np.ptp(pool, axis=0) > 0
        mean, scale = np.where(varies, mean, pool[0]), np.where(varies, scale, 1.0)
        _, values, directions = np.linalg.svd((pool - mean) / scale, full_matrices=False)
        if size is None:
            size = latent_size(values, count=len(pool), dimension=int(varies.sum()))
        if not 1 <= size <= np.count_nonzero(values > 1e-9 * values[0]):
            raise PriorError(f"the pool does not span {size} latent directions")
        # Exactly: what no adapter of the pool changes, no candidate changes.
        directions[:, ~varies] = 0.0
        peak = np.abs(directions[:size]).argmax(axis=1)
        sign = np.sign(directions[np.arange(size), peak])
        return cls(
            mean, scale, directions[:size] * sign[:, None], values[:size] / len(pool) ** 0.5
        )

    @property
    def size(self) -> int:
        """q, the number of latent coordinates."""
        return len(self.std)

    @property
    def dimension(self) -> int:
        """d, the number of adapter coordinates."""
        return len(self.mean)

    def encode(self, adapters: FloatArray) -> FloatArray:
        """Map adapters ``(..., d)`` to latents ``(..., q)``; the pool's are whitened."""
        standard = (adapters - self.mean) / self.scale
        return standard @ self.directions.T / self.std

    def decode(self, latents: FloatArray) -> FloatArray:
        """Map latents ``(..., q)`` to adapters ``(..., d)``."""
        return self.mean + self.scale * ((latents * self.std) @ self.directions)

    def center(self) -> FloatArray:
        """Return the adapter of latents zero, the pool's mean, shape ``(d,)``."""
        return np.asarray(self.mean, dtype=np.float64).copy()

    def axes(self) -> FloatArray:
        """Return how far one standard deviation goes along each direction, shape ``(q, d)``."""
        return np.asarray(self.std[:, None] * self.directions * self.scale, dtype=np.float64)

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays under the names that `from_tensors` reads."""
        return {
            "latent.mean": self.mean,
            "latent.scale": self.scale,
            "latent.directions": self.directions,
            "latent.deviations": self.std,
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Rebuild from `tensors`."""
        return cls(
            tensors["latent.mean"],
            tensors["latent.scale"],
            tensors["latent.directions"],
            tensors["latent.deviations"],
        )
