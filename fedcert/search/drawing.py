"""Drawing a recipe's candidates: first those that are fixed, if any, then the prior's."""

from __future__ import annotations

import numpy as np

from fedcert.arrays import FloatArray
from fedcert.certificates import Recipe
from fedcert.errors import CertificateError
from fedcert.priors.base import Prior

__all__ = ["NO_CONSTANTS", "draw", "fixed_candidates", "led_by"]

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

    What is fixed takes the places of the first draws; candidate j from then on is the draw
    that it is without.

    Parameters
    ----------
    recipe : Recipe
        Says which candidates are fixed.
    prior : Prior
        What the others are drawn from.
    constants : numpy.ndarray
        `fedcert.adapters.constants.constant_adapters` of the space, shape ``(K, d)``.
    seed : str
        256 bits in hexadecimal.
    start, count : int
        Which candidates.

    Returns
    -------
    numpy.ndarray
        Float64, shape ``(count, d)``.

    Raises
    ------
    CertificateError
        If the recipe has another number of constants than there are.
    """
    fixed = fixed_candidates(recipe, prior, constants)
    return led_by(fixed, prior.sample(seed, start=start, count=count), start=start)


def led_by(fixed: FloatArray, drawn: FloatArray, *, start: int = 0) -> FloatArray:
    """Return draws from number `start` on, with fixed candidates in their places.

    Parameters
    ----------
    fixed : numpy.ndarray
        Candidates that are no draws, and take the first places, shape ``(F, d)``.
    drawn : numpy.ndarray
        Draws of the prior, shape ``(count, d)``.
    start : int (default: 0)
        Number of the first draw.

    Returns
    -------
    numpy.ndarray
        Float64, shape ``(count, d)``.
    """
    first = fixed[start : start + len(drawn)]
    return np.concatenate([first, drawn[len(first) :]]) if len(first) else drawn


def fixed_candidates(recipe: Recipe, prior: Prior, constants: FloatArray) -> FloatArray:
    """Return a recipe's first candidates as far as they are no draws, shape ``(count, d)``.

    The prior's center, or one constant predictor for each label.

    Parameters
    ----------
    recipe : Recipe
        Says which candidates are no draws.
    prior : Prior
        The distribution that the others are drawn from.
    constants : numpy.ndarray
        The constant predictors, shape ``(K, d)``.

    Returns
    -------
    numpy.ndarray
        Float64, shape ``(count, d)``.

    Raises
    ------
    CertificateError
        As in `draw`.
    """
    if recipe.centered:
        return prior.center()[None]
    return constants[: constants_in(recipe, constants)]


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
