"""Playing out statements that hold all at once: of several operating points, or clients.

All of them err just beyond a bound, so the lowest of their bounds is the one that is false.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fedcert.certificates import PointsPromise, Recipe, SimultaneousPromise, SplitRecipe
from fedcert.settings.certificates import CertificateSettings
from fedcert.simulations.benchmarks.promise_episodes import DELTA, SIZE

__all__ = [
    "CLIENTS",
    "POINTS",
    "clients_recipe",
    "false_together",
    "points_recipe",
    "rows",
]

POINTS = 4
"""Operating points in every episode, P."""
CLIENTS = 4
"""Clients in every episode, N."""


def points_recipe() -> Recipe:
    """Return the recipe of an operating point, as settings make it."""
    names = tuple(f"point-{number}" for number in range(POINTS))
    terms = CertificateSettings(delta=DELTA, points=", ".join(names), point=names[0]).shares()
    return SplitRecipe(candidates=1, **terms)


def clients_recipe() -> Recipe:
    """Return the recipe of one of N clients whose certificates hold together."""
    terms = CertificateSettings(delta=DELTA, simultaneous=CLIENTS).shares()
    return SplitRecipe(candidates=1, **terms)


def false_together(recipe: Recipe, count: int, episodes: int, *, seed: Any) -> int:
    """Count the episodes in which the lowest of several bounds was false.

    Every error lies just beyond the bound of a count; they err independently of each other,
    as clients do, and where a union pays most.

    Parameters
    ----------
    recipe : Recipe
        Of each of them.
    count : int
        How many there are.
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
    errors = np.random.default_rng(seed).binomial(trials, risk, size=(episodes, count))
    return sum(recipe.bound(int(least), trials) < risk for least in errors.min(axis=1))


def rows(episodes: int, *, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Play the best of `POINTS` points, and of `CLIENTS` clients.

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
    played = (
        (PointsPromise.kind, points_recipe(), POINTS, "points"),
        (SimultaneousPromise.kind, clients_recipe(), CLIENTS, "clients"),
    )
    for kind, recipe, count, things in played:
        yield {
            "promise": kind,
            "recipe": f"{SplitRecipe.kind} of 1",
            "case": f"the best of {count} {things}, all just beyond a bound",
            "episodes": episodes,
            "violations": false_together(recipe, count, episodes, seed=seed),
            "delta": DELTA,
        }
