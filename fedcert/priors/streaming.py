"""The latent space of a pool that does not fit into memory, from one pass over its chunks.

What is kept is the sum of squares about the running mean, a ``d x d`` matrix: 54 MB at
d = 2,600, whatever the number of adapters.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.linalg import eigh
from scipy.linalg.blas import dsyrk

from fedcert.errors import PriorError
from fedcert.priors.base import FloatArray
from fedcert.priors.latent import LatentSpace
from fedcert.priors.latent_size import latent_size

__all__ = ["Moments", "latent_from_chunks", "latent_from_moments"]

MOST_COORDINATES = 20_000
"""Largest d: its matrix takes 3.2 GB, and its eigenvectors as much again."""


class Moments:
    """Mean and scatter of rows that come in chunks, free of cancellation.

    Chunks are merged about their means by the rule of Chan, Golub and LeVeque (1983): sums
    of squares about zero would lose the variance of a coordinate whose mean is large.

    Attributes
    ----------
    count : int
        Rows so far.
    mean, low, high : numpy.ndarray
        Shape ``(d,)``; the mean, the smallest and the largest value of each coordinate.
    scatter : numpy.ndarray
        Shape ``(d, d)``: the sum over rows of (x - mean)(x - mean)^T. Only its upper
        triangle is filled.
    """

    def __init__(self, dimension: int) -> None:
        if dimension > MOST_COORDINATES:
            raise PriorError(
                f"a streaming fit keeps d x d numbers, and d = {dimension} is above "
                f"{MOST_COORDINATES}; adapt fewer modules or choose a smaller rank"
            )
        self.count = 0
        self.mean = np.zeros(dimension)
        self.low, self.high = np.full(dimension, np.inf), np.full(dimension, -np.inf)
        self.scatter = np.zeros((dimension, dimension), order="F")

    def add(self, chunk: FloatArray) -> None:
        """Take in a chunk of shape ``(n, d)``.

        Raises
        ------
        PriorError
            If it has another width, or a number that is not finite.
        """
        chunk = np.asarray(chunk, dtype=np.float64)
        if chunk.ndim != 2 or chunk.shape[1] != len(self.mean) or not np.isfinite(chunk).all():
            raise PriorError(
                f"a chunk of a pool must be a finite matrix with {len(self.mean)} columns"
            )
        if not len(chunk):
            return
        mean = chunk.mean(axis=0)
        shift, total = mean - self.mean, self.count + len(chunk)
        self._accumulate(chunk - mean)
        if self.count:
            self._accumulate(shift[None] * (self.count * len(chunk) / total) ** 0.5)
        self.mean += shift * (len(chunk) / total)
        self.count = total
        np.minimum(self.low, chunk.min(axis=0), out=self.low)
        np.maximum(self.high, chunk.max(axis=0), out=self.high)

    def _accumulate(self, rows: FloatArray) -> None:
        """Add rows^T rows to the upper triangle, in place and at half the cost of a product."""
        # A row-major matrix is its transpose to BLAS: no copy is made.
        self.scatter = dsyrk(1.0, rows.T, beta=1.0, c=self.scatter, overwrite_c=1)


def latent_from_moments(moments: Moments, *, size: int | None = None) -> LatentSpace:
    """Make the latent space of the rows behind some moments.

    The result is that of `LatentSpace.of` up to rounding: eigenvectors of the correlation
    matrix are the right singular vectors of the standardized pool.

    Parameters
    ----------
    moments : Moments
        Of at least two rows. Their scatter is used up.
    size : int, optional
        q; by default `latent_size` finds it.

    Raises
    ------
    PriorError
        If there are fewer than two rows, or they do not span `size` directions.
    """
    count = moments.count
    if count < 2:
        raise PriorError(f"{count} adapters are too few for a latent space; it needs 2")
    varies = moments.high > moments.low
    mean = np.where(varies, moments.mean, moments.low)
    variance = np.where(varies, np.diag(moments.scatter) / count, 1.0)
    scale = np.sqrt(variance)
    correlation = moments.scatter
    correlation /= scale[:, None]
    correlation /= scale[None]
    eigenvalues, vectors = eigh(correlation, lower=False, overwrite_a=True, check_finite=False)
    # Squares are exact to 1e-16 of the largest; what is below is rounding.
    floor = len(scale) * np.finfo(np.float64).eps * max(float(eigenvalues[-1]), 0.0)
    squares = np.where(eigenvalues > floor, eigenvalues, 0.0)[::-1][: min(count, len(scale))]
    values = np.sqrt(squares)
    if size is None:
        size = latent_size(values, count=count, dimension=int(varies.sum()))
    if not 1 <= size <= np.count_nonzero(values):
        raise PriorError(f"the pool does not span {size} latent directions")
    directions = np.ascontiguousarray(vectors[:, ::-1][:, :size].T)
    peak = np.abs(directions).argmax(axis=1)
    sign = np.sign(directions[np.arange(size), peak])
    return LatentSpace(mean, scale, directions * sign[:, None], values[:size] / count**0.5)


def latent_from_chunks(chunks: Iterable[FloatArray], *, size: int | None = None) -> LatentSpace:
    """Fit a latent space to a pool that comes in chunks, in one pass and constant memory.

    Parameters
    ----------
    chunks : iterable of numpy.ndarray
        Parts of the pool, shape ``(n, d)`` each; `Pool.chunks` reads them from disk.
    size : int, optional
        q; by default `latent_size` finds it.

    Returns
    -------
    LatentSpace
        That of `LatentSpace.of` on the whole pool, up to rounding.

    Raises
    ------
    PriorError
        If a chunk is not a finite matrix, the pool has fewer than two adapters, or it does
        not span `size` directions.
    """
    moments: Moments | None = None
    for chunk in chunks:
        moments = moments or Moments(chunk.shape[-1])
        moments.add(chunk)
    if moments is None:
        raise PriorError("the pool is empty; a latent space needs adapters")
    return latent_from_moments(moments, size=size)
