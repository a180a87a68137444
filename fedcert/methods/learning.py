"""The recipes by which new clients of a method learn, from the method's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedcert.certificates import DefaultRecipe, PosteriorSplitRecipe, Recipe
from fedcert.methods.local_training import PersonalTraining

__all__ = ["default_recipe", "finetune_recipe", "learned_recipe", "split_recipe"]


def default_recipe(terms: Mapping[str, Any]) -> Recipe:
    """Return the recipe that learns nothing: all examples certify what is published."""
    return DefaultRecipe(candidates=1, **terms)


def finetune_recipe(
    personal: PersonalTraining, choose_fraction: float, terms: Mapping[str, Any]
) -> Recipe:
    """Return the split that fine-tunes what is published, or its head alone.

    Parameters
    ----------
    personal : PersonalTraining
        How; weight decay from the start of training is the pull, so that the two add up.
    choose_fraction : float
        Share of the examples to learn from.
    terms : Mapping
        What every recipe takes.

    Returns
    -------
    Recipe
        A posterior split with one finalist.
    """
    if personal.settings.head_only:
        return split_recipe("tuned_head", choose_fraction, terms)
    return PosteriorSplitRecipe(
        candidates=1,
        refinement="finetune",
        choose_fraction=choose_fraction,
        **_tuning(personal),
        **terms,
    )


def learned_recipe(
    personal: PersonalTraining,
    choose_fraction: float,
    terms: Mapping[str, Any],
    *,
    count: int = 1,
    plain: bool = False,
) -> Recipe:
    """Return the split whose finalists a method's own rule makes.

    Parameters
    ----------
    personal : PersonalTraining
        How plain fine-tuning goes.
    choose_fraction : float
        Share of the examples to learn from.
    terms : Mapping
        What every recipe takes.
    count : int (default: 1)
        How many adapters the rule makes.
    plain : bool (default: False)
        Whether plain fine-tuning is a finalist as well.

    Returns
    -------
    Recipe
        A posterior split, in which all finalists share delta.
    """
    return PosteriorSplitRecipe(
        candidates=count + plain,  # none is drawn, but finalists are not to outnumber them
        finalists=count + plain,
        refinement="finetune+learned" if plain else "learned",
        choose_fraction=choose_fraction,
        **(_tuning(personal) if plain else {}),
        **terms,
    )


def _tuning(personal: PersonalTraining) -> dict[str, Any]:
    return {
        "tuning_steps": personal.settings.steps,
        "learning_rate": personal.settings.learning_rate,
        "pull": personal.proximal_mu,
        "keep": personal.keep,
    }


def split_recipe(refinement: str, choose_fraction: float, terms: Mapping[str, Any]) -> Recipe:
    """Return a posterior split whose one finalist takes no settings of its own.

    Parameters
    ----------
    refinement : str
        What makes it.
    choose_fraction : float
        Share of the examples to learn from.
    terms : Mapping
        What every recipe takes.

    Returns
    -------
    Recipe
        With the finalist that the refinement makes.
    """
    return PosteriorSplitRecipe(
        candidates=1, refinement=refinement, choose_fraction=choose_fraction, **terms
    )
