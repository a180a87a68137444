"""Central differential privacy: the server publishes a noised mean, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fedcert.arrays import FloatArray
from fedcert.errors import SettingsError
from fedcert.privacy.gaussian import composed, epsilon_of
from fedcert.privacy.mechanism import GaussianPrivacy, clipped

__all__ = ["MeanPrivacy"]


@dataclass(frozen=True)
class MeanPrivacy(GaussianPrivacy):
    """The promise of one published mean: replacing any one client's adapter hardly shows.

    Parameters
    ----------
    clip, epsilon, delta : float
        As in `GaussianPrivacy`.

    Raises
    ------
    SettingsError
        If one of them is out of range.
    """

    def noise_deviation(self, clients: int) -> float:
        """Return the standard deviation of the noise on each coordinate of the mean.

        Replacing one of N adapters moves the mean of the shortened ones by at most 2 C / N.
        """
        return 2 * self.clip / clients / self.mu

    def release(self, pool: FloatArray, *, generator: np.random.Generator) -> FloatArray:
        """Shorten adapters ``(N, d)``, average them, and add noise: shape ``(d,)``.

        The generator must be secret, as in `UploadPrivacy.release`, and the result is rounded
        to float32 for the same reason.

        Raises
        ------
        SettingsError
            If there is no adapter, or one is not finite: no clipping could bound it.
        """
        pool = np.asarray(pool, dtype=np.float64)
        if pool.ndim != 2 or not len(pool) or not np.isfinite(pool).all():
            raise SettingsError("a mean can be made private only of finite adapters, one a row")
        mean = np.mean([clipped(row, self.clip) for row in pool], axis=0)
        noise = generator.standard_normal(pool.shape[1])
        released = mean + self.noise_deviation(len(pool)) * noise
        rounded: FloatArray = released.astype(np.float32).astype(np.float64)
        return rounded

    def notes(
        self, clients: int, *, before: tuple[float, ...] = (), trunk: float = 0.0
    ) -> dict[str, Any]:
        """Return what a bundle says about its privacy: a JSON object.

        Parameters
        ----------
        clients : int
            N, how many adapters are in the mean.
        before : tuple of float
            mu of all means that were published from the same pool before.
        trunk : float (default: 0)
            mu of the warm start that the same clients trained the base model in.

        Returns
        -------
        dict
            The promise of all of them together, in numbers and in words.
        """
        together = epsilon_of(composed(trunk, *before, self.mu), self.delta)
        also = ", and the base model that the clients trained," if trunk else ""
        return {
            "mechanism": "Gaussian noise on the mean of clipped adapters, added by the server",
            "epsilon": float(f"{together:.6g}"),
            "epsilon_of_one_release": self.epsilon,
            "delta_p": self.delta,
            "clip": self.clip,
            "noise_deviation": float(f"{self.noise_deviation(clients):.6g}"),
            "clients": clients,
            "releases": [*before, self.mu],
            **({"warm_start": trunk} if trunk else {}),
            "unit": "replacing one client's adapter, by one that the server accepts as well, "
            "in every published version"
            + (", and its part in the base model" if trunk else ""),
            "words": (
                "The bundle holds the mean of the clients' adapters, with noise, and nothing "
                f"else that depends on them. Whoever sees all its versions{also} learns next "
                "to nothing about any one client's adapter: whichever of those that the "
                f"server accepts it was, no outcome is more than e^{together:.3g} times as "
                f"probable, but for a probability of {self.delta:g}. How many it accepted "
                "stands here. The server itself saw the adapters."
            ),
        }
