"""Protocols that let a client learn or choose what it must not, though the recipe is honest.

A split chooses among candidates that are all alike, and certifies on the other half. What is
broken is where its halves, its seed, or the recipe itself come from.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from fedcert.arrays import FloatArray
from fedcert.certificates import SplitRecipe
from fedcert.simulations.benchmarks.episodes import SIZE, hardest
from fedcert.simulations.benchmarks.mutants.base import DELTA, Mutant, Seed

__all__ = ["MUTANTS"]

_RECIPE = SplitRecipe(candidates=20, delta=DELTA)
_SPELLINGS = 8
_FRACTIONS = (0.25, 0.5, 0.75)
_BATCH = 1_000

BoolArray = npt.NDArray[np.bool_]
Bound = Callable[[BoolArray, np.random.Generator], FloatArray]
"""From what candidates get wrong, shape (E, M, n), to what is certified in each episode."""


def _certified(wrong: BoolArray, recipe: SplitRecipe = _RECIPE) -> FloatArray:
    """Return the bounds of the recipe, whose halves are the examples' order."""
    choosing, certifying = recipe.choosing(SIZE), recipe.certifying(SIZE)
    best = wrong[:, :, choosing.as_slice()].sum(axis=2).argmin(axis=1)
    errors = wrong[np.arange(len(wrong)), best][:, certifying.as_slice()].sum(axis=1)
    bounds = [recipe.bound(k, certifying.size) for k in range(certifying.size + 1)]
    return np.asarray(np.array(bounds)[errors])


def _in_order(wrong: BoolArray, order: npt.NDArray[np.int64]) -> BoolArray:
    return np.take_along_axis(wrong, order[:, None], axis=2)


def _drawn(wrong: BoolArray, rng: np.random.Generator) -> FloatArray:
    """Certify in an order that is drawn once, after the examples."""
    return _certified(_in_order(wrong, rng.random((len(wrong), SIZE)).argsort(axis=1)))


def _knowing_the_seed(wrong: BoolArray, _rng: np.random.Generator) -> FloatArray:
    """Certify in an order that puts easy examples where they certify."""
    return _certified(_in_order(wrong, (-wrong.sum(axis=1)).argsort(axis=1, kind="stable")))


def _spelling(wrong: BoolArray, rng: np.random.Generator) -> FloatArray:
    """Certify the best of several orders: each spelling of the inputs gives another one."""
    return np.asarray(np.min([_drawn(wrong, rng) for _ in range(_SPELLINGS)], axis=0))


def _choosing_the_recipe(wrong: BoolArray, _rng: np.random.Generator) -> FloatArray:
    """Certify by whichever of several recipes gives the lowest bound."""
    recipes = [SplitRecipe(candidates=20, delta=DELTA, choose_fraction=f) for f in _FRACTIONS]
    return np.asarray(np.min([_certified(wrong, recipe) for recipe in recipes], axis=0))


def _false(bound: Bound, episodes: int, seed: Seed) -> int:
    rng, false = np.random.default_rng(seed), 0
    risk = hardest(_RECIPE, 2)
    for start in range(0, episodes, _BATCH):
        count = min(_BATCH, episodes - start)
        wrong = rng.random((count, _RECIPE.candidates, SIZE)) < risk
        false += int((bound(wrong, rng) < risk).sum())
    return false


def _broken(name: str, breaks: str, bound: Bound) -> Mutant:
    return Mutant(
        name,
        breaks,
        "protocol",
        "certificates",
        partial(_false, bound),
        partial(_false, _drawn),
    )


MUTANTS = (
    _broken(
        "SeedKnownFirst",
        "The seed is known first, and easy examples are put where they certify",
        _knowing_the_seed,
    ),
    _broken(
        "SeedFromTheInputs",
        f"The seed is a hash of the examples, and the best of {_SPELLINGS} spellings is kept",
        _spelling,
    ),
    _broken(
        "RecipeChosenAfter",
        f"The best of {len(_FRACTIONS)} recipes is kept, each at all of delta",
        _choosing_the_recipe,
    ),
)
