"""The point prior: one adapter, and whatever else a federation shares beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fedcert.arrays import FloatArray
from fedcert.errors import PriorError
from fedcert.named_arrays import prefixed, under
from fedcert.priors.base import Prior, check_pool

__all__ = ["PointPrior"]

_SHARED = "shared."


class PointPrior(Prior):
    """Every candidate is the same adapter: what a method that averages hands to new clients.

    With it the recipes that learn from the center, and the one that certifies the center,
    mean the same as with a distribution; those that choose among candidates have no choice.

    Parameters
    ----------
    center : numpy.ndarray
        The adapter, shape ``(d,)``.
    method : Mapping, optional
        The method that made it, as `fedcert.methods.Method.to_config` writes it, if a new
        client learns by the method's own rule (default: none).
    shared : Mapping, optional
        Named arrays that the rule takes, such as the weights of a net (default: none).

    Raises
    ------
    PriorError
        If the adapter is no vector of finite numbers.
    """

    kind = "point"

    def __init__(
        self,
        center: FloatArray,
        *,
        method: Mapping[str, Any] | None = None,
        shared: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> None:
        center = np.asarray(center, dtype=np.float64)
        if center.ndim != 1 or not len(center) or not np.isfinite(center).all():
            raise PriorError("the point of a prior must be a vector of finite numbers")
        self._center = center
        self.method = None if method is None else dict(method)
        self.shared = dict(shared or {})

    @classmethod
    def fit(cls, pool: FloatArray, *, seed: int) -> Self:
        """Take the pool's mean; the seed plays no part."""
        return cls(check_pool(pool, at_least=1).mean(axis=0))

    @property
    def dimension(self) -> int:
        """d, the number of coordinates of an adapter."""
        return len(self._center)

    @property
    def noise_width(self) -> int:
        """One number, which changes nothing."""
        return 1

    def transform(self, noise: FloatArray) -> FloatArray:
        """Return the adapter, once for each row."""
        return np.repeat(self._center[None], len(noise), axis=0)

    def center(self) -> FloatArray:
        """Return the adapter."""
        return self._center

    def config(self) -> dict[str, Any]:
        """Return the method, if its rule is needed."""
        return {} if self.method is None else {"method": self.method}

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return the adapter and what is shared beside it."""
        return {"center": self._center, **prefixed(_SHARED, self.shared)}

    @classmethod
    def from_parts(
        cls, config: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]
    ) -> Self:
        """Rebuild from the adapter and what is shared beside it."""
        return cls(tensors["center"], shared=under(_SHARED, tensors), **config)
