"""What every prior over the adapter space can do.

A prior is a fixed map from standard normal noise to adapters. Candidate j is the image of
the noise keyed by (seed, j), so any one candidate can be redrawn alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from fedcert.arrays import FloatArray
from fedcert.canonical import digest_json, digest_tensors
from fedcert.errors import PriorError
from fedcert.randomness import candidate_noise, derive_seed

if TYPE_CHECKING:
    import torch

__all__ = ["Prior", "check_pool"]


# Certificates of a prior's center name no number of draws: it never changes.
_CENTRAL_DRAWS = 1024


class Prior(ABC):
    """A generative distribution over adapters.

    A prior is immutable and made of a configuration (JSON) and tensors; both together are
    its constructor's arguments, so what is saved is what it was built from.
    """

    kind: ClassVar[str]

    @property
    @abstractmethod
    def dimension(self) -> int:
        """d, the number of coordinates of an adapter."""

    @property
    @abstractmethod
    def noise_width(self) -> int:
        """How many standard normal numbers one candidate is made from."""

    @abstractmethod
    def transform(self, noise: FloatArray) -> FloatArray:
        """Map noise of shape ``(count, noise_width)`` to adapters ``(count, d)``.

        Each row depends on its own noise alone, up to rounding.
        """

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return the settings among the constructor's arguments, as a JSON value."""

    @abstractmethod
    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays among the constructor's arguments."""

    @classmethod
    @abstractmethod
    def from_parts(
        cls, config: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]
    ) -> Self:
        """Rebuild a prior from `config` and `tensors`."""

    @classmethod
    @abstractmethod
    def fit(cls, pool: FloatArray, *, seed: int) -> Self:
        """Fit the prior to a pool of shape ``(N, d)``."""

    def sample(self, seed: str, *, start: int = 0, count: int) -> FloatArray:
        """Draw candidates `start` to ``start + count - 1`` of a seed.

        Parameters
        ----------
        seed : str
            256 bits in hexadecimal.
        start, count : int
            Which candidates.

        Returns
        -------
        numpy.ndarray
            Float64 of shape ``(count, d)``.
        """
        return self.transform(candidate_noise(seed, start, count, self.noise_width))

    def center(self) -> FloatArray:
        """Return the adapter in the middle, shape ``(d,)``: what there is before any choice.

        It follows from the prior alone. By default it is the mean of many draws of one seed; a
        prior that knows the mean of the pool says that. (Zero noise is no adapter of every
        prior: some divide by its norm.)
        """
        draws = self.sample(derive_seed("center of a prior"), count=_CENTRAL_DRAWS)
        return np.asarray(draws.mean(axis=0), dtype=np.float64)

    def axes(self) -> FloatArray:
        """Return how the prior's adapters vary around the center, one axis a row, ``(k, d)``.

        Each is as long as adapters typically go along it, one standard deviation. By default
        the axes are those of the coordinates, as far as many draws of one seed differ there; a
        prior that knows the pool's directions says those, and one that draws one adapter has
        none.
        """
        draws = self.sample(derive_seed("axes of a prior"), count=_CENTRAL_DRAWS)
        # The deviation of equal numbers need not be exactly zero.
        varies = np.ptp(draws, axis=0) > 0
        return np.asarray(np.diag(draws.std(axis=0))[varies], dtype=np.float64)

    def coarse(self) -> Prior:
        """Return a prior with a coarse sampler: nearby candidates from the same noise, cheaply.

        Chains over a posterior walk on it (`fedcert.search.refinement`).
        """
        return self

    def on(self, device: torch.device) -> Prior:
        """Return the prior with its sampler on a device: the same candidates up to rounding.

        Noise is drawn on the CPU in any case. By default samplers stay there too.
        """
        return self

    @property
    def digest(self) -> str:
        """Identity of the prior: kind, settings and tensors."""
        return digest_json(
            {
                "kind": self.kind,
                "config": self.config(),
                "tensors": digest_tensors(self.tensors()),
            }
        )


def check_pool(pool: FloatArray, *, at_least: int) -> FloatArray:
    """Check a pool of adapters before fitting.

    Raises
    ------
    PriorError
        If it is not a finite matrix of at least `at_least` adapters.
    """
    pool = np.asarray(pool, dtype=np.float64)
    if pool.ndim != 2 or not np.isfinite(pool).all():
        raise PriorError("a pool must be a finite matrix with one adapter per row")
    if len(pool) < at_least:
        raise PriorError(
            f"{len(pool)} adapters are too few to fit this prior; it needs {at_least}"
        )
    return pool
