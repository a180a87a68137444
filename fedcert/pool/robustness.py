"""Robust pooling: uploads that do not belong to the rest are left out of the fit.

A poisoned pool makes certificates loose, never false; this keeps them from getting loose.
Copies are collapsed into one, and outliers are found by how far an adapter lies from the
pool's center and how far off the directions that the others share. All scales are medians
and all directions robust, so that a fifth of hostile uploads cannot move them much.

What cannot be told from an honest adapter stays in: a coordinated group whose adapters
spread as widely as honest ones, in the directions of honest ones, is such a group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from fedcert.arrays import FloatArray
from fedcert.randomness import keyed_generator

__all__ = ["Screening", "screen_pool"]

SMALLEST = 16
"""Below so many adapters no scale can be trusted, and only exact copies are dropped."""

# In standard deviations; so many leave honest adapters alone. Outliers widen the spread of
# likeness more than that of lengths, and its honest tail is shorter.
_THRESHOLD, _UNLIKE = 4.5, 4.0
# Closer than this share of the usual distance to the nearest adapter is a copy: two honest
# trainings of one task differ more, by their data.
_COPY = 0.1
_FOLDS, _ROUNDS = 4, 4
_MOST_ROWS = 2000  # to find directions from
_BLOCK = 512
# Makes the median absolute deviation of a normal variable its standard deviation.
_NORMAL = 1.4826

_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Screening:
    """Which adapters of a pool the fit may use.

    Attributes
    ----------
    kept : numpy.ndarray
        Rows, rising.
    dropped : Mapping[int, str]
        Reason by row.
    """

    kept: npt.NDArray[np.int64]
    dropped: Mapping[int, str]

    @property
    def reasons(self) -> dict[str, int]:
        """How many were dropped for each reason."""
        return dict(sorted(Counter(self.dropped.values()).items()))

    @property
    def summary(self) -> str:
        """One line for logs; empty if nothing was dropped."""
        if not self.dropped:
            return ""
        listed = ", ".join(f"{count} {reason}" for reason, count in self.reasons.items())
        total = len(self.kept) + len(self.dropped)
        return f"{len(self.dropped)} of {total} uploads left out of the fit: {listed}"


def screen_pool(pool: FloatArray) -> Screening:
    """Find copies and outliers in a pool.

    Parameters
    ----------
    pool : numpy.ndarray
        Adapters, shape ``(N, d)``; d may be far above N.

    Returns
    -------
    Screening
        At least half of the distinct adapters are kept: with more outliers than that
        nothing says which half is the honest one, and none is dropped.
    """
    pool = np.asarray(pool, dtype=np.float64)
    dropped = dict.fromkeys(_copies(pool), "the same as another upload")
    distinct = np.setdiff1d(np.arange(len(pool)), list(dropped))
    if len(distinct) >= SMALLEST:
        reasons = _outliers(pool[distinct])
        if 2 * len(reasons) < len(distinct):
            dropped |= {int(distinct[row]): reason for row, reason in reasons.items()}
    kept = np.setdiff1d(np.arange(len(pool)), list(dropped))
    return Screening(kept, dict(sorted(dropped.items())))


def _copies(pool: FloatArray) -> list[int]:
    """Return all but the first of every group of adapters that are (nearly) the same."""
    _, first, group = np.unique(pool, axis=0, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[group.ravel()] != np.arange(len(pool)))
    distinct = np.sort(first)
    if len(distinct) < SMALLEST:
        return [int(row) for row in again]
    points = _standardized(pool[distinct], np.ones(len(distinct), dtype=bool))
    nearest = np.concatenate([squared.min(axis=1) for _, squared in _squared_distances(points)])
    # The usual distance is that of the looser half: copies may be many.
    limit = _COPY**2 * np.quantile(nearest, 0.75)
    pairs = [
        (start + row, column)
        for start, squared in _squared_distances(points)
        for row, column in zip(*np.nonzero(squared < limit), strict=True)
    ]
    rows, columns = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    size = len(distinct)
    graph = csr_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(size, size))
    _, groups = connected_components(graph, directed=False)
    _, leaders = np.unique(groups, return_index=True)
    near = np.setdiff1d(np.arange(size), leaders)
    return sorted(int(row) for row in (*again, *distinct[near]))


def _outliers(pool: FloatArray) -> dict[int, str]:
    """Return the reason by row, scores being those of rows that a model has not seen."""
    kept = np.ones(len(pool), dtype=bool)
    reasons: dict[int, str] = {}
    for _ in range(_ROUNDS):
        reasons = {}
        for reason, deviations in _deviations(pool, kept).items():
            for row in np.flatnonzero(deviations > 1.0):
                reasons.setdefault(int(row), reason)
        now = np.ones(len(pool), dtype=bool)
        now[list(reasons)] = False
        if np.array_equal(now, kept) or 2 * np.sum(now) <= len(pool):
            break
        kept = now
    return reasons


def _deviations(pool: FloatArray, kept: _Mask) -> dict[str, FloatArray]:
    """Say by how many thresholds each row is off, relative to kept rows other than itself."""
    points = _standardized(pool, kept)
    squares = np.maximum(np.sum(points**2, axis=1), 1e-24)
    inside, outside = np.zeros(len(pool)), np.zeros(len(pool))
    fold = keyed_generator("robust pooling", len(pool)).permutation(len(pool)) % _FOLDS
    for index in range(_FOLDS):
        held = fold == index
        known = points[kept & ~held][:_MOST_ROWS]
        directions = _robust_directions(known)
        along = points[held] @ directions.T
        spread = _NORMAL * np.median(np.abs(known @ directions.T), axis=0)
        inside[held] = np.sum((along / np.maximum(spread, 1e-12)) ** 2, axis=1)
        outside[held] = squares[held] - np.sum(along**2, axis=1)
    # Cube roots of squared lengths are close to normal (Wilson and Hilferty 1931).
    lengths = []
    for squared in (squares, outside, inside):
        roots = np.cbrt(np.maximum(squared, 0.0))
        lengths.append(_standing(roots, kept, least=0.02 * float(np.median(roots[kept]))))
    # Half as much in common as usual is no reason, however alike the others are.
    alike = _standing(np.log(_likeness(points, kept)), kept, least=0.2)
    return {
        "at an unusual distance from the center": np.abs(lengths[0]) / _THRESHOLD,
        "off the directions that the others share": lengths[1] / _THRESHOLD,
        "extreme along the directions that the others share": lengths[2] / _THRESHOLD,
        "unlike every other upload": -alike / _UNLIKE,
    }


def _likeness(points: FloatArray, kept: _Mask) -> FloatArray:
    """Return each row's mean squared cosine with the kept rows other than itself.

    Noise that looks honest coordinate by coordinate points where no other row points.
    """
    unit = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    known, likeness = unit[kept], np.empty(len(points))
    for start in range(0, len(unit), _BLOCK):
        block = slice(start, start + _BLOCK)
        likeness[block] = np.sum((unit[block] @ known.T) ** 2, axis=1)
    others: FloatArray = np.sum(kept) - kept.astype(np.float64)
    return np.asarray(np.maximum(likeness - kept * np.sum(unit**2, axis=1), 1e-12) / others)


def _standing(values: FloatArray, kept: _Mask, *, least: float) -> FloatArray:
    """Return robust z-scores: deviations from the median of the kept rows.

    A deviation is at least `least`: the others may be very much alike.
    """
    center = float(np.median(values[kept]))
    spread = _NORMAL * float(np.median(np.abs(values[kept] - center)))
    return np.asarray((values - center) / max(spread, least, 1e-12))


def _standardized(pool: FloatArray, kept: _Mask) -> FloatArray:
    """Divide by robust scales about medians, in the kept rows' coordinates."""
    center = np.median(pool[kept], axis=0)
    scale = _NORMAL * np.median(np.abs(pool[kept] - center), axis=0)
    usual = float(np.median(scale))
    # A coordinate that hardly ever moves must not outweigh all others.
    floor = 0.1 * usual if usual > 0 else 1.0
    return (pool - center) / np.maximum(scale, floor)


def _robust_directions(points: FloatArray) -> FloatArray:
    """Find shared directions by spherical PCA (Locantore et al. 1999), shape ``(q, d)``.

    Every row counts by its direction alone, however long it is. The number of directions
    is that of parallel analysis (Horn 1965): those that vary more than any direction of the
    same numbers with every coordinate shuffled on its own.
    """
    unit = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    values, directions = _spectrum(unit)
    shuffled = keyed_generator("parallel analysis", len(points)).permuted(unit, axis=0)
    null, _ = _spectrum(shuffled)
    most = max(1, len(points) // 3)
    return directions[: min(most, max(1, int(np.sum(values > null[0]))))]


def _spectrum(rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return falling singular values and right singular vectors."""
    _, values, right = np.linalg.svd(rows, full_matrices=False)
    return values, right


def _squared_distances(points: FloatArray) -> Iterator[tuple[int, FloatArray]]:
    """Yield the first row and the distances to all rows, a block of rows at a time."""
    norms = np.sum(points**2, axis=1)
    for start in range(0, len(points), _BLOCK):
        block = slice(start, start + _BLOCK)
        squared = norms[block, None] + norms[None] - 2 * points[block] @ points.T
        rows = np.arange(len(squared))
        squared[rows, start + rows] = np.inf  # not its own neighbor
        yield start, np.maximum(squared, 0.0)
