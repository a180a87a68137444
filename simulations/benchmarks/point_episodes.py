"""Playing out the best of several operating points, all of which err just beyond a bound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fedcert.certificates import PointsPromise, Recipe, SplitRecipe
from fedcert.settings.certificates import CertificateSettings
from fedcert.simulations.benchmarks.promise_episodes import DELTA, SIZE

__all__ = ["POINTS", "false_points", "points_recipe", "rows"]

POINTS = 4
"""Operating points in every episode, P."""


def points_recipe() -> Recipe:
    """Return the recipe of an operating point, as settings make it."""
    names = tuple(f"point-{number}" for number in range(POINTS))
    terms = CertificateSettings(delta=DELTA, points=", ".join(names), point=names[0]).shares()
    return SplitRecipe(candidates=1, **terms)


def false_points(recipe: Recipe, episodes: int, *, seed: Any) -> int:
    """Count the episodes in which the lowest of P bounds was false.

    Every point's error lies just beyond the bound of a count; they err independently of each
    other, which is where a union pays most.

    Parameters
    ----------
    recipe : Recipe
        Of each of the `POINTS` points.
    episodes : int
        How often.
    seed : int or tuple of int
        Draws the errors.

    Returns
    -------
    int
        False bounds, from 0 to `episodes`.
    """
    trials = recipe.certifying(SIZE).size
    risk = recipe.bound(0, trials) + 1e-9
    errors = np.random.default_rng(seed).binomial(trials, risk, size=(episodes, POINTS))
    return sum(recipe.bound(int(least), trials) < risk for least in errors.min(axis=1))


def rows(episodes: int, *, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Play the best of `POINTS` points.

    Parameters
    ----------
    episodes : int
        How often.
    seed : int (default: 0)
        Draws the episodes.

    Yields
    ------
    dict
        A row as of `promise_episodes.rows`.
    """
    yield {
        "promise": PointsPromise.kind,
        "recipe": f"{SplitRecipe.kind} of 1",
        "case": f"the best of {POINTS} points, all just beyond a bound",
        "episodes": episodes,
        "violations": false_points(points_recipe(), episodes, seed=seed),
        "delta": DELTA,
    }
