"""Priors that hand out the pool itself: as it is, or with noise around each adapter.

Both are baselines, and both disclose clients' adapters; the pool travels in the prior.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp, ndtr

from fedcert.arrays import FloatArray
from fedcert.priors.base import Prior, check_pool
from fedcert.priors.latent import LatentSpace

__all__ = ["JitterPrior", "ResamplingPrior"]

BANDWIDTHS = np.geomspace(0.05, 1.0, 14)


class ResamplingPrior(Prior):
    """Each candidate is an adapter of the pool, drawn uniformly.

    Parameters
    ----------
    pool : numpy.ndarray
        Shape ``(N, d)``.
    """

    kind = "pool"

    def __init__(self, pool: FloatArray) -> None:
        self._pool = pool

    @classmethod
    def fit(cls, pool: FloatArray, *, seed: int) -> Self:
        """Keep the pool; the seed plays no part."""
        return cls(check_pool(pool, at_least=1))

    @property
    def dimension(self) -> int:
        """d, the number of coordinates of an adapter."""
        return int(self._pool.shape[1])

    @property
    def noise_width(self) -> int:
        """One number chooses the adapter."""
        return 1

    def transform(self, noise: FloatArray) -> FloatArray:
        """Look up the adapter that each noise value falls on."""
        return self._pool[_uniform_index(noise[:, 0], len(self._pool))]

    def center(self) -> FloatArray:
        """Return the pool's mean, which is none of its adapters."""
        return np.asarray(self._pool.mean(axis=0), dtype=np.float64)

    def config(self) -> dict[str, Any]:
        """Return no settings."""
        return {}

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return the pool."""
        return {"pool": self._pool}

    @classmethod
    def from_parts(
        cls, config: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]
    ) -> Self:
        """Rebuild from the pool."""
        return cls(tensors["pool"])


class JitterPrior(Prior):
    """A pool adapter plus Gaussian noise: a kernel density estimate in the latent space.

    Parameters
    ----------
    latent : LatentSpace
        Where the noise lives.
    centers : numpy.ndarray
        The pool's latents, shape ``(N, q)``.
    bandwidth : float
        Standard deviation of the noise, in standard deviations of the pool.
    """

    kind = "jitter"

    def __init__(self, latent: LatentSpace, centers: FloatArray, *, bandwidth: float) -> None:
        self._latent, self._centers, self.bandwidth = latent, centers, bandwidth

    @classmethod
    def fit(cls, pool: FloatArray, *, seed: int) -> Self:
        """Choose the bandwidth by leave-one-out likelihood; the seed plays no part."""
        pool = check_pool(pool, at_least=4)
        latent = LatentSpace.of(pool)
        centers = latent.encode(pool)
        scores = [_leave_one_out(centers, bandwidth) for bandwidth in BANDWIDTHS]
        return cls(latent, centers, bandwidth=float(BANDWIDTHS[int(np.argmax(scores))]))

    @property
    def dimension(self) -> int:
        """d, the number of coordinates of an adapter."""
        return self._latent.dimension

    @property
    def noise_width(self) -> int:
        """One number chooses the adapter, the others move it."""
        return 1 + self._latent.size

    def transform(self, noise: FloatArray) -> FloatArray:
        """Look up an adapter and move it."""
        centers = self._centers[_uniform_index(noise[:, 0], len(self._centers))]
        return self._latent.decode(centers + self.bandwidth * noise[:, 1:])

    def center(self) -> FloatArray:
        """Return the pool's mean."""
        return self._latent.center()

    def axes(self) -> FloatArray:
        """Return the pool's directions."""
        return self._latent.axes()

    def config(self) -> dict[str, Any]:
        """Return the bandwidth."""
        return {"bandwidth": self.bandwidth}

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return the latent space and the centers."""
        return self._latent.tensors() | {"centers": self._centers}

    @classmethod
    def from_parts(
        cls, config: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]
    ) -> Self:
        """Rebuild from latent space, centers and bandwidth."""
        return cls(LatentSpace.from_tensors(tensors), tensors["centers"], **config)


def _uniform_index(noise: FloatArray, count: int) -> npt.NDArray[np.int64]:
    """Turn standard normal numbers into indices that are uniform below `count`."""
    return np.minimum((ndtr(noise) * count).astype(np.int64), count - 1)


def _leave_one_out(centers: FloatArray, bandwidth: float) -> float:
    """Return the mean log density of each point under the kernels of all others."""
    squared = np.sum(centers**2, axis=1)
    distances = squared[:, None] + squared[None] - 2 * centers @ centers.T
    exponents = -distances / (2 * bandwidth**2)
    np.fill_diagonal(exponents, -np.inf)
    width = centers.shape[1]
    return float(np.mean(logsumexp(exponents, axis=1)) - width * np.log(bandwidth))
