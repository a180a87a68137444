"""What a poisoned pool does to certificates, where every risk is known exactly.

Clients have linear tasks: x is standard normal in R^k, the label is the sign of w . x, turned
over with probability eta. A classifier v then errs with probability
eta + (1 - 2 eta) angle(v, w) / pi. Hostile uploads fit labeled examples of the new client's own
task perfectly, noise and all: once other examples than the client's (the pool is bad, but
independent of the support set), once the very examples that will certify.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from fedcert.arrays import FloatArray
from fedcert.certificates import Recipe, SplitRecipe, UnionRecipe
from fedcert.priors import PRIORS
from fedcert.randomness import derive_seed, keyed_generator

__all__ = ["POISONERS", "episode", "poisoning_rows"]

POISONERS = ("none", "independent", "has seen the examples")

DELTA = 0.05
_WIDTH, _EXAMPLES = 80, 64  # more coordinates than examples: any labels can be fitted
_FLIPPED = 0.2
_UPLOADS, _HOSTILE = 40, 0.5
_CANDIDATES = 50


def poisoning_rows(
    *,
    episodes: int = 2000,
    priors: Sequence[str] = ("gaussian", "pool"),
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Count false certificates over new clients, each with a pool of its own.

    Parameters
    ----------
    episodes : int (default: 2000)
        New clients for each row.
    priors : sequence of str
        Some of `fedcert.priors.PRIORS`.
    seed : int (default: 0)
        Seed of everything.

    Returns
    -------
    list of dict
        ``{"poisoner", "prior", "recipe", "episodes", "violations", "delta",
        "mean_certificate", "mean_risk"}``.
    """
    recipes: list[Recipe] = [
        variant(candidates=_CANDIDATES, delta=DELTA) for variant in (UnionRecipe, SplitRecipe)
    ]
    rows = []
    for poisoner, prior in product(POISONERS, priors):
        found = np.array(
            [episode(poisoner, prior, recipes, seed=seed, index=i) for i in range(episodes)]
        )
        for column, recipe in enumerate(recipes):
            bounds, risks = found[:, column].T
            rows.append(
                {
                    "poisoner": poisoner,
                    "prior": prior,
                    "recipe": recipe.kind,
                    "episodes": episodes,
                    "violations": int(np.sum(risks > bounds)),
                    "delta": DELTA,
                    "mean_certificate": float(bounds.mean()),
                    "mean_risk": float(risks.mean()),
                }
            )
    return rows


def episode(
    poisoner: str, prior: str, recipes: Sequence[Recipe], *, seed: int, index: int
) -> list[tuple[float, float]]:
    """Serve one new client; return certificate and exact risk for each recipe.

    The client and the honest uploads do not depend on the poisoner.

    Parameters
    ----------
    poisoner : str
        What the poisoner knows.
    prior : str
        Kind of the prior.
    recipes : sequence of Recipe
        The recipes to serve the client with.
    seed : int
        The experiment's.
    index : int
        Number of the episode.

    Returns
    -------
    list of tuple
        Certificate and exact risk, in the order of the recipes.
    """
    generator = keyed_generator("poisoning", seed, index)
    common = generator.standard_normal(_WIDTH)
    uploads = common + generator.standard_normal((_UPLOADS, _WIDTH))
    own = common + generator.standard_normal(_WIDTH)
    inputs, labels = _labeled(own, generator)
    hostile = round(_HOSTILE * _UPLOADS)
    if poisoner == "independent":
        uploads[:hostile] = _overfitted(*_labeled(own, generator), hostile, generator)
    elif poisoner == "has seen the examples":
        uploads[:hostile] = _overfitted(inputs, labels, hostile, generator)
    fitted = PRIORS[prior].fit(uploads, seed=0)
    candidates = fitted.sample(derive_seed("poisoning", seed, index), count=_CANDIDATES)
    wrong = np.sign(candidates @ inputs.T) != labels
    found = []
    for recipe in recipes:
        choosing = recipe.choosing(_EXAMPLES).as_slice()
        certifying = recipe.certifying(_EXAMPLES).as_slice()
        best = int(np.argmin(wrong[:, choosing].sum(axis=1)))
        errors = wrong[best, certifying]
        bound = recipe.bound(int(errors.sum()), len(errors))
        found.append((bound, _risk(candidates[best], own)))
    return found


def _labeled(
    weights: FloatArray, generator: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Draw examples ``(n, k)`` of a task with their labels, -1 or 1."""
    inputs = generator.standard_normal((_EXAMPLES, _WIDTH))
    flips = np.where(generator.random(_EXAMPLES) < _FLIPPED, -1.0, 1.0)
    return inputs, np.sign(inputs @ weights) * flips


def _overfitted(
    inputs: FloatArray, labels: FloatArray, count: int, generator: np.random.Generator
) -> FloatArray:
    """Return different classifiers ``(count, k)`` that get every one of the labels right."""
    margins = labels * generator.uniform(4.0, 12.0, (count, len(labels)))
    return np.asarray(np.linalg.lstsq(inputs, margins.T, rcond=None)[0].T)


def _risk(weights: FloatArray, truth: FloatArray) -> float:
    """Return the exact probability of an error on a fresh example."""
    cosine = weights @ truth / (np.linalg.norm(weights) * np.linalg.norm(truth))
    angle = float(np.arccos(np.clip(cosine, -1.0, 1.0)))
    return _FLIPPED + (1 - 2 * _FLIPPED) * angle / np.pi
