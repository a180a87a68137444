"""The Gaussian prior: independent normal latents along the principal directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy.typing as npt

from fedcert.arrays import FloatArray
from fedcert.priors.base import Prior, check_pool
from fedcert.priors.latent import LatentSpace

__all__ = ["GaussianPrior"]


class GaussianPrior(Prior):
    """A Gaussian on the same latent space as the diffusion prior.

    Parameters
    ----------
    latent : LatentSpace
        Where the Gaussian lives.
    """

    kind = "gaussian"

    def __init__(self, latent: LatentSpace) -> None:
        self._latent = latent

    @classmethod
    def fit(cls, pool: FloatArray, *, seed: int) -> Self:
        """Fit by moments; the seed plays no part."""
        return cls(LatentSpace.of(check_pool(pool, at_least=3)))

    @property
    def dimension(self) -> int:
        """d, the number of coordinates of an adapter."""
        return self._latent.dimension

    @property
    def noise_width(self) -> int:
        """The latent size."""
        return self._latent.size

    def transform(self, noise: FloatArray) -> FloatArray:
        """Decode the noise as latents."""
        return self._latent.decode(noise)

    def center(self) -> FloatArray:
        """Return the pool's mean."""
        return self._latent.center()

    def axes(self) -> FloatArray:
        """Return the pool's directions."""
        return self._latent.axes()

    def config(self) -> dict[str, Any]:
        """Return no settings: the tensors say all."""
        return {}

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return the latent space."""
        return self._latent.tensors()

    @classmethod
    def from_parts(
        cls, config: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]
    ) -> Self:
        """Rebuild from the latent space."""
        return cls(LatentSpace.from_tensors(tensors))
