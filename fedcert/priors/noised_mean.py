"""A default adapter that was published with noise, and no structure around it.

Directions, scales and latents of a pool are further releases about its adapters, and would each
have to be paid for. Here all that is known of the pool is one noised adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fedcert.errors import PriorError
from fedcert.priors.base import FloatArray, Prior

__all__ = ["NoisedMeanPrior"]


class NoisedMeanPrior(Prior):
    """A round Gaussian about an adapter; its width is a constant that no upload decides.

    Parameters
    ----------
    center : numpy.ndarray
        The published adapter, shape ``(d,)``.
    deviation : float
        Standard deviation of candidates along each coordinate.

    Raises
    ------
    PriorError
        If the center is no vector of finite numbers, or the deviation is negative.
    """

    kind = "noised_mean"

    def __init__(self, center: npt.NDArray[Any], *, deviation: float) -> None:
        center = np.asarray(center, dtype=np.float64)
        if center.ndim != 1 or not len(center) or not np.isfinite(center).all():
            raise PriorError("a noised mean must be a vector of finite numbers")
        if not 0 <= deviation < np.inf:
            raise PriorError(f"the deviation must be 0 or more and finite, not {deviation!r}")
        self._center, self._deviation = center, float(deviation)

    @classmethod
    def fit(cls, pool: FloatArray, *, seed: int) -> Self:
        """Refuse: noise costs a promise, which a fit knows nothing about."""
        raise PriorError(
            "a noised mean is published under privacy.central_epsilon, not fitted by its kind"
        )

    @property
    def dimension(self) -> int:
        """d, the number of coordinates of an adapter."""
        return len(self._center)

    @property
    def noise_width(self) -> int:
        """As many as coordinates."""
        return len(self._center)

    def transform(self, noise: FloatArray) -> FloatArray:
        """Scale the noise, and add the center."""
        return self._center + self._deviation * noise

    def center(self) -> FloatArray:
        """Return the published adapter."""
        return self._center.copy()

    def config(self) -> dict[str, Any]:
        """Return the deviation."""
        return {"deviation": self._deviation}

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return the published adapter."""
        return {"center": self._center}

    @classmethod
    def from_parts(
        cls, config: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]
    ) -> Self:
        """Rebuild from `config` and `tensors`."""
        return cls(tensors["center"], deviation=config["deviation"])
