"""The server's noise."""

from __future__ import annotations

import numpy as np

from fedcert.randomness import fresh_seed, keyed_generator
from fedcert.settings import RunSettings

__all__ = ["server_noise"]


def server_noise(
    settings: RunSettings, *place: str | int, secret: str = ""
) -> np.random.Generator:
    """Return what draws the noise of one release: secret, unless the run is a simulation.

    Parameters
    ----------
    settings : RunSettings
        With `server.state`, the server is a deployed one. A simulation repeats: its noise
        follows from its seed, which is no secret.
    *place : str or int
        Which release of the run it is.
    secret : str (default: "")
        What a deployed server draws it with, where the release may be made again.

    Returns
    -------
    numpy.random.Generator
        A generator for this release alone.
    """
    if settings.server.state:
        return keyed_generator("noise of the server", secret or fresh_seed())
    return keyed_generator("simulated noise", settings.seed, *place)
