"""The nearest-pool audit, which tells generalizing from replaying.

Weight generators are known to replay their training checkpoints (Zeng et al.,
arXiv 2506.07998); in a federation a replay is also a leak of a client's adapter. The check
compares how near samples come to the pool with how near held-out adapters come to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedcert.arrays import FloatArray
from fedcert.priors.base import Prior
from fedcert.priors.latent import LatentSpace
from fedcert.priors.replication import ReplicationTest, replication_test

__all__ = ["NearestPoolAudit", "audit_nearest_pool", "nearest_distances"]


@dataclass(frozen=True)
class NearestPoolAudit:
    """Distances to the nearest pool adapter, in whitened latents.

    Attributes
    ----------
    samples, held_out : tuple of float
        Distance of each of the prior's samples, and of adapters that the fit never saw.
    threshold : float
        The smallest ratio that passes.
    """

    samples: tuple[float, ...]
    held_out: tuple[float, ...]
    threshold: float

    @property
    def ratio(self) -> float:
        """Median distance of samples over that of held-out adapters: 0 is pure replay."""
        return float(np.median(self.samples) / max(np.median(self.held_out), 1e-12))

    @property
    def passed(self) -> bool:
        """Whether samples keep the distance that fresh adapters keep."""
        return self.ratio >= self.threshold

    @property
    def replication(self) -> ReplicationTest:
        """Whether chance explains that samples are nearer than held-out adapters."""
        return replication_test(self.samples, self.held_out)


def nearest_distances(points: FloatArray, pool: FloatArray) -> FloatArray:
    """Return the Euclidean distance of each point ``(n, q)`` to the nearest of a pool."""
    squared = (
        np.sum(points**2, axis=1)[:, None] + np.sum(pool**2, axis=1)[None] - 2 * points @ pool.T
    )
    return np.asarray(np.sqrt(np.maximum(squared.min(axis=1), 0.0)))


def audit_nearest_pool(
    prior: Prior,
    *,
    pool: FloatArray,
    held_out: FloatArray,
    seed: str,
    count: int = 200,
    threshold: float = 0.5,
) -> NearestPoolAudit:
    """Compare `count` samples with adapters that the fit never saw.

    Distances are taken in the pool's own latent space: off it, adapters differ by the noise
    of training, which no prior samples, and which would drown what is looked for.

    Parameters
    ----------
    prior : Prior
        Fitted to `pool`.
    pool, held_out : numpy.ndarray
        Shapes ``(N, d)`` and ``(H, d)``, with H >= 1.
    seed : str
        256 bits in hexadecimal, of the samples.
    count : int (default: 200)
        How many samples.
    threshold : float (default: 0.5)
        The smallest ratio of medians that passes.

    Returns
    -------
    NearestPoolAudit
        The ratio of medians, and a test for copies.
    """
    latent = LatentSpace.of(pool)
    known = latent.encode(pool)
    samples = nearest_distances(latent.encode(prior.sample(seed, count=count)), known)
    fresh = nearest_distances(latent.encode(held_out), known)
    return NearestPoolAudit(tuple(samples.tolist()), tuple(fresh.tolist()), threshold)
