"""What happens to an upload before it leaves the client."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedcert.arrays import FloatArray
from fedcert.errors import SettingsError
from fedcert.privacy.gaussian import epsilon_of, mu_of

__all__ = ["GaussianPrivacy", "UploadPrivacy", "clipped"]


@dataclass(frozen=True)
class GaussianPrivacy:
    """What one release promises that is clipped and noised, whatever is released.

    Parameters
    ----------
    clip : float
        C, the largest norm of an adapter; longer ones are shortened.
    epsilon, delta : float
        The promise for one release. `delta` is the delta_p of a bundle's notes, not the
        delta of certificates.

    Raises
    ------
    SettingsError
        If one of them is out of range.
    """

    clip: float
    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not 0 < self.clip < np.inf:
            raise SettingsError(f"the clipping norm must be above 0 (got {self.clip!r})")
        mu_of(self.epsilon, self.delta)

    @property
    def mu(self) -> float:
        """The promise as Gaussian differential privacy, for accounting."""
        return mu_of(self.epsilon, self.delta)


@dataclass(frozen=True)
class UploadPrivacy(GaussianPrivacy):
    """The promise of one upload: whichever adapter it was, replacing it hardly shows.

    Replacing one adapter by another moves the upload by at most 2 C.

    Parameters
    ----------
    clip, epsilon, delta : float
        As in `GaussianPrivacy`.

    Raises
    ------
    SettingsError
        If one of them is out of range.
    """

    @property
    def sensitivity(self) -> float:
        """How far replacing one adapter can move the upload: 2 C."""
        return 2 * self.clip

    @property
    def noise_deviation(self) -> float:
        """Standard deviation of the noise on each coordinate."""
        return self.sensitivity / self.mu

    def release(self, vector: FloatArray, *, generator: np.random.Generator) -> FloatArray:
        """Clip a vector ``(d,)`` and add noise.

        The generator must be secret: whoever can repeat its draws can subtract them. Noise
        in floating point leaks a little through its last bits (Mironov 2012); rounding the
        result to float32, as uploads are, hides most of that.

        Raises
        ------
        SettingsError
            If the vector is not finite: no clipping could bound it.
        """
        vector = np.asarray(vector, dtype=np.float64)
        if not np.isfinite(vector).all():
            raise SettingsError("an adapter with NaN or an infinity cannot be made private")
        noise = generator.standard_normal(vector.shape)
        return clipped(vector, self.clip) + self.noise_deviation * noise

    def terms(self) -> dict[str, Any]:
        """Return it as a JSON object, by which a client knows what it has released."""
        return {
            "mechanism": "local Gaussian noise on each upload",
            "epsilon": self.epsilon,
            "delta_p": self.delta,
            "clip": self.clip,
            "noise_deviation": float(f"{self.noise_deviation:.6g}"),
            "unit": "replacing one client's upload, one release per client",
        }

    def notes(self, released: Iterable[float]) -> dict[str, Any]:
        """Return what a bundle says about uploads that were made under it: a JSON object.

        Parameters
        ----------
        released : iterable of float
            For each client behind the bundle the mu of all that it has released together,
            this upload included, by its own word.
        """
        together = epsilon_of(max(released), self.delta)
        return {
            **self.terms(),
            "epsilon": float(f"{together:.6g}"),
            "epsilon_of_one_release": self.epsilon,
            "unit": "replacing all that one client has uploaded, by the clients' own ledgers",
        }


def clipped(vector: FloatArray, norm: float) -> FloatArray:
    """Shorten a vector to a Euclidean norm, unless it is shorter already."""
    length = float(np.linalg.norm(vector))
    return vector if length <= norm else vector * (norm / length)
