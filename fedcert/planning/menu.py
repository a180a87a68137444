"""The recipes that a planner chooses among."""

from __future__ import annotations

from fedcert.certificates import (
    HybridRecipe,
    PosteriorSplitRecipe,
    Recipe,
    SplitRecipe,
    UnionRecipe,
)

__all__ = ["menu", "recipe_name", "worth_trying"]

# Shares of the support set that choose.
_SPLITS = (0.25, 0.5)
_POSTERIOR_SPLITS = (0.25, 0.375, 0.5)
# More examples than these teach a posterior little, and cost much.
_MOST_REFINED_ON = 64


def menu(*, candidates: int, delta: float) -> tuple[Recipe, ...]:
    """Return every recipe that a planner tries.

    Parameters
    ----------
    candidates : int
        M of each recipe.
    delta : float
        Delta of each recipe.
    """
    terms = {"candidates": candidates, "delta": delta}
    return (
        Recipe.from_config({"kind": UnionRecipe.kind, **terms}),
        *(
            Recipe.from_config({"kind": kind, **terms, "choose_fraction": share})
            for kind, shares in (
                (SplitRecipe.kind, _SPLITS),
                (HybridRecipe.kind, _SPLITS),
                (PosteriorSplitRecipe.kind, _POSTERIOR_SPLITS),
            )
            for share in shares
        ),
    )


def worth_trying(recipe: Recipe, n: int) -> bool:
    """Return whether a planner tries a recipe at n: not if it would refine on too many."""
    return not recipe.refines or recipe.choosing(n).size <= _MOST_REFINED_ON


def recipe_name(recipe: Recipe) -> str:
    """Return a recipe's kind, with the share of examples that choose if it has one."""
    share = getattr(recipe, "choose_fraction", None)
    return recipe.kind if share is None else f"{recipe.kind} {share:g}"
