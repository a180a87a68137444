"""How many latent directions a pool supports."""

from __future__ import annotations

import numpy as np

from fedcert.arrays import FloatArray

__all__ = ["latent_size", "noise_values", "spectral_gap"]

# A fall by this ratio between neighbors is a gap; spectra of small pools fall by less
# everywhere, and then the gap's place is chance.
_CLEAR = 1.3
# The largest singular values of noise scatter around their limit by a few percent.
_MARGIN = 1.05
_GRID = 4096


def latent_size(values: FloatArray, *, count: int, dimension: int) -> int:
    """Choose q from the spectrum of a standardized pool.

    Where the spectrum has a clear gap, it ends there. Where it has none, as with a few dozen
    adapters, q is the number of singular values above those of noise of the same shape:
    parallel analysis (Horn, Psychometrika 1965), with the spectrum of noise taken from its
    limit instead of from permutations.

    Parameters
    ----------
    values : numpy.ndarray
        Singular values, falling.
    count, dimension : int
        Shape of the pool; coordinates that never vary do not count.

    Returns
    -------
    int
        q, at least 1.
    """
    if len(values) < 2 or values[0] <= 0:
        return 1
    gap = spectral_gap(values)
    following = max(float(values[gap]), 1e-12 * float(values[0]))
    if values[gap - 1] / following >= _CLEAR:
        return gap
    noise = _MARGIN * noise_values(count, dimension)
    above = values[: len(noise)] > noise[: len(values)]
    leading = len(above) if above.all() else int(np.argmin(above))
    return max(1, leading)


def spectral_gap(values: FloatArray) -> int:
    """Return where the singular values fall by the largest ratio.

    Only the first third of the spectrum is searched. Further down the values of any finite
    pool fall steeply, gap or no gap.

    Parameters
    ----------
    values : numpy.ndarray
        Singular values of the standardized pool, falling.
    """
    searched = max(2, len(values) // 3)
    head = np.maximum(values[: searched + 1], 1e-12 * values[0])
    if len(head) < 2:
        return 1
    return int(np.argmax(head[:-1] / head[1:])) + 1


def noise_values(count: int, dimension: int) -> FloatArray:
    """Return the singular values to expect of white noise, falling.

    The quantiles of the law of Marchenko and Pastur (1967), for the smaller side of the
    matrix.

    Parameters
    ----------
    count, dimension : int
        Shape of the matrix, whose entries have variance one.

    Returns
    -------
    numpy.ndarray
        Shape ``(min(count, dimension),)``.
    """
    small, large = sorted((count, dimension))
    ratio = small / large
    middle, half = 1 + ratio, 2 * ratio**0.5
    # x = middle - half cos(angle) takes the square roots out of the density.
    angles = (np.arange(_GRID) + 0.5) * np.pi / _GRID
    places = middle - half * np.cos(angles)
    mass = np.cumsum(np.sin(angles) ** 2 / places)
    fractions = 1 - (np.arange(small) + 0.5) / small
    eigenvalues = np.interp(fractions * mass[-1], mass, places)
    return np.asarray(np.sqrt(large * eigenvalues))
