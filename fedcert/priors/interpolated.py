"""Candidates on the way from one global adapter to what another prior draws.

Personalizing forgets what the federation knows beside a client's own task. Every candidate
here keeps a fixed share of a global adapter. The share is part of the prior, published before
any certifying example is seen, so certificates stay what they are: the search pays for
candidates, whatever they are made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from fedcert.arrays import FloatArray
from fedcert.errors import PriorError
from fedcert.named_arrays import prefixed, under
from fedcert.priors.base import Prior
from fedcert.priors.registry import prior_from_parts

if TYPE_CHECKING:
    import torch

__all__ = ["InterpolatedPrior"]

# What the names of the other prior's arrays begin with.
_REST = "rest."


class InterpolatedPrior(Prior):
    """Candidates ``keep * center + (1 - keep) * candidate`` of another prior.

    Parameters
    ----------
    rest : Prior
        What the personal part is drawn from.
    center : numpy.ndarray
        The global adapter, shape ``(d,)``.
    keep : float
        Share of the global adapter, 0 to 1.

    Raises
    ------
    PriorError
        If shapes or `keep` do not fit.
    """

    kind = "interpolated"

    def __init__(self, rest: Prior, *, center: npt.NDArray[Any], keep: float) -> None:
        center = np.asarray(center, dtype=np.float64)
        if center.shape != (rest.dimension,) or not np.isfinite(center).all():
            raise PriorError(
                f"the global adapter must be {rest.dimension} finite numbers, not an array of "
                f"shape {center.shape}"
            )
        if not 0 <= keep <= 1:
            raise PriorError(f"keep must lie between 0 and 1, not {keep!r}")
        self._rest, self._center, self._keep = rest, center, float(keep)

    @classmethod
    def fit(cls, pool: FloatArray, *, seed: int) -> Self:
        """Refuse: there is nothing that says how much to keep, and of which prior."""
        raise PriorError("an interpolated prior is made from another one, not fitted")

    @property
    def dimension(self) -> int:
        """d, the number of coordinates of an adapter."""
        return self._rest.dimension

    @property
    def noise_width(self) -> int:
        """That of the other prior."""
        return self._rest.noise_width

    def transform(self, noise: FloatArray) -> FloatArray:
        """Mix what the other prior makes of the noise with the global adapter."""
        return self._keep * self._center + (1 - self._keep) * self._rest.transform(noise)

    def center(self) -> FloatArray:
        """Mix the other prior's center with the global adapter."""
        return self._keep * self._center + (1 - self._keep) * self._rest.center()

    def axes(self) -> FloatArray:
        """Shorten the other prior's axes: a share of every candidate is the same."""
        return (1 - self._keep) * self._rest.axes()

    def coarse(self) -> Prior:
        """Mix with the other prior's coarse sampler."""
        return type(self)(self._rest.coarse(), center=self._center, keep=self._keep)

    def on(self, device: torch.device) -> Prior:
        """Put the other prior's sampler on a device."""
        return type(self)(self._rest.on(device), center=self._center, keep=self._keep)

    def config(self) -> dict[str, Any]:
        """Return `keep`, and kind and settings of the other prior."""
        rest = {"kind": self._rest.kind, "config": self._rest.config()}
        return {"keep": self._keep, "rest": rest}

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return the global adapter and the other prior's arrays."""
        return {"center": self._center} | prefixed(_REST, self._rest.tensors())

    @classmethod
    def from_parts(
        cls, config: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]
    ) -> Self:
        """Rebuild from `config` and `tensors`."""
        inner = under(_REST, tensors)
        return cls(
            prior_from_parts(config["rest"]["kind"], config["rest"]["config"], inner),
            center=tensors["center"],
            keep=config["keep"],
        )
