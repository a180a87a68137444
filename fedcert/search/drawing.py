"""Drawing a recipe's candidates: constant predictors first, if it has any, then the prior's."""

from __future__ import annotations

import numpy as np

from fedcert.certificates import Recipe
from fedcert.errors import CertificateError
from fedcert.priors.base import FloatArray, Prior

__all__ = ["NO_CONSTANTS", "constants_in", "draw", "led_by"]

NO_CONSTANTS: FloatArray = np.zeros((0, 0))
"""For recipes that have none."""


def draw(
    recipe: Recipe,
    prior: Prior,
    constants: FloatArray,
    seed: str,
    *,
    start: int = 0,
    count: int,
) -> FloatArray:
    """Return candidates `start` to ``start + count - 1`` of a recipe, shape ``(count, d)``.

    Constants take the places of the first draws; candidate j from then on is the draw that
    it is without them.

    Parameters
    ----------
    recipe : Recipe
        Says how many candidates are constants.
    prior : Prior
        What the others are drawn from.
    constants : numpy.ndarray
        `fedcert.adapters.constant_adapters` of the space, shape ``(K, d)``.
    seed : str
        256 bits in hexadecimal.
    start, count : int
        Which candidates.

    Raises
    ------
    CertificateError
        If the recipe has another number of constants than there are.
    """
    led = constants[: constants_in(recipe, constants)]
    return led_by(led, prior.sample(seed, start=start, count=count), start=start)


def led_by(constants: FloatArray, drawn: FloatArray, *, start: int = 0) -> FloatArray:
    """Return draws, of which the one at `start` comes first, with constants in their places."""
    first = constants[start : start + len(drawn)]
    return np.concatenate([first, drawn[len(first) :]]) if len(first) else drawn


def constants_in(recipe: Recipe, constants: FloatArray) -> int:
    """Return how many of a recipe's candidates are constants.

    Raises
    ------
    CertificateError
        If there are some, and the model has not as many.
    """
    wanted, known = recipe.constant_predictors, len(constants)
    if wanted and wanted != known:
        raise CertificateError(
            f"the recipe has {wanted} constant predictors, and this model {known}: one for "
            "each label, if its head ends in a bias"
        )
    return wanted
