"""Choosing the adapter to certify, as the recipe says."""

from __future__ import annotations

from collections.abc import Callable

from fedcert.arrays import FloatArray
from fedcert.certificates import Chosen, Recipe
from fedcert.data.examples import Examples
from fedcert.priors.base import Prior
from fedcert.search.drawing import NO_CONSTANTS
from fedcert.search.scores import Scorer
from fedcert.search.session import CHUNK, SupportSession

__all__ = ["choose"]


def choose(
    recipe: Recipe,
    prior: Prior,
    scorer: Scorer,
    ordered: Examples,
    *,
    seed: str,
    constants: FloatArray = NO_CONSTANTS,
    chunk: int = CHUNK,
    unlabeled: Examples | None = None,
    on_scored: Callable[[int], None] = lambda _count: None,
) -> Chosen:
    """Let a recipe choose an adapter on a support set.

    Parameters
    ----------
    recipe : Recipe
        The recipe, whose `Recipe.choose` decides.
    prior, scorer, ordered, seed, constants, chunk, unlabeled, on_scored
        As in `SupportSession`.

    Returns
    -------
    Chosen
        The chosen adapter, and what its weight follows from.
    """
    return recipe.choose(
        SupportSession(
            recipe,
            prior,
            scorer,
            ordered,
            seed=seed,
            constants=constants,
            chunk=chunk,
            unlabeled=unlabeled,
            on_scored=on_scored,
        )
    )
