"""The recipes that a planner chooses among."""

from __future__ import annotations

from typing import Any

from fedcert.certificates import (
    HybridRecipe,
    MixedUnionRecipe,
    PosteriorSplitRecipe,
    Recipe,
    SwapRecipe,
    UnionRecipe,
)
from fedcert.certificates.attempts import FIRST_SHARE

__all__ = ["menu", "recipe_name", "worth_trying"]

# Shares of the support set that choose, or give weights.
_HYBRIDS = (0.25, 0.5)
_POSTERIOR_SPLITS = (0.25, 0.375, 0.5)
# Shares of delta for constant predictors.
_MIXED = (0.5, 0.9)
# With fewer examples than these, two chances at half of delta are worth less than one.
_FEWEST_SWAPPED = 64
# More examples than these teach a posterior little, and cost much.
_MOST_REFINED_ON = 64


def menu(
    *, candidates: int, delta: float, constants: int = 0, randomized: bool = False
) -> tuple[Recipe, ...]:
    """Return every recipe that a planner tries.

    There is no plain split among them: a hybrid of the same share gives the candidates that
    choosing leaves behind little weight, and lets the others choose once more.

    Parameters
    ----------
    candidates : int
        M of each recipe.
    delta : float
        Delta of each recipe.
    constants : int (default: 0)
        K, how many constant predictors there are; 0 leaves out the recipes that need them.
    randomized : bool (default: False)
        Whether their bounds take a number from the seed.
    """
    terms: dict[str, Any] = {
        "candidates": candidates,
        "delta": delta,
        "first_share": FIRST_SHARE,
        "randomized": randomized,
    }
    return (
        UnionRecipe(**terms),
        *(HybridRecipe(**terms, choose_fraction=share) for share in _HYBRIDS),
        SwapRecipe(**terms),
        *(PosteriorSplitRecipe(**terms, choose_fraction=share) for share in _POSTERIOR_SPLITS),
        *(
            MixedUnionRecipe(**terms, constants=constants, share=share)
            for share in _MIXED
            if 1 < constants < candidates
        ),
    )


def worth_trying(recipe: Recipe, n: int) -> bool:
    """Return whether a planner tries a recipe at n.

    Not if it would refine on too many examples, or swap parts of too few.
    """
    if recipe.kind == SwapRecipe.kind:
        return n >= _FEWEST_SWAPPED
    return not recipe.refines or recipe.choosing(n).size <= _MOST_REFINED_ON


def recipe_name(recipe: Recipe) -> str:
    """Return a recipe's kind, with the share of examples that choose, or of the constants."""
    share = getattr(recipe, "choose_fraction", getattr(recipe, "share", None))
    return recipe.kind if share is None else f"{recipe.kind} {share:g}"
