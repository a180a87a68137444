"""From a run's settings to the recipes by which new clients spend their examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fedcert.certificates import (
    DefaultRecipe,
    PosteriorSplitRecipe,
    Recipe,
    RecipeTable,
)
from fedcert.certificates.recipes.base import UnknownRecipeError
from fedcert.errors import SettingsError
from fedcert.methods import Method
from fedcert.settings.sections import PLANNED

if TYPE_CHECKING:
    from fedcert.settings.run import RunSettings

__all__ = ["method_recipes", "recipe_table"]


def recipe_table(settings: RunSettings) -> RecipeTable:
    """Return which recipe serves which n, fixed before any new client is served.

    Where recipes are planned, this is what serves if no plan comes about.

    Parameters
    ----------
    settings : RunSettings
        Of the run.

    Returns
    -------
    RecipeTable
        What ``certificate.recipe`` and ``certificate.split_from`` say.

    Raises
    ------
    CertificateError
        If the settings are none for the recipe.
    """
    certificate = settings.certificate
    terms = {"candidates": certificate.candidates, **_terms(settings)}
    # Also where a method brings its own recipe, and the scenario recommends to plan one.
    kind = "union" if certificate.recipe == PLANNED else certificate.recipe
    few = {"candidates": 1} if kind == DefaultRecipe.kind else {}
    try:
        small = Recipe.from_config({"kind": kind, **terms, **few})
    except UnknownRecipeError as error:
        raise SettingsError(
            f"setting 'certificate.recipe': {error}. Or {PLANNED!r}: clients find out which "
            "suits"
        ) from error
    split = Recipe.from_config({"kind": "split", **terms})
    if settings.privacy.central_epsilon:
        # Candidates would be noise. What learns alone starts at the center.
        split = _tuned_from_center(settings, terms | few)
    if certificate.split_from == 1 or certificate.recipe == "split":
        return RecipeTable(((1, split),))
    return RecipeTable(((1, small), (certificate.split_from, split)))


def method_recipes(settings: RunSettings, method: Method) -> RecipeTable | None:
    """Return the recipe of a method that has one; None where `recipe_table` says it.

    Parameters
    ----------
    settings : RunSettings
        Of the run.
    method : Method
        Of these settings.

    Returns
    -------
    RecipeTable or None
        One recipe for all n, with a finalist more if ``personal.tuned_head`` says so.
    """
    recipe = method.recipe(_terms(settings))
    if recipe is None:
        return None
    if settings.personal.tuned_head and isinstance(recipe, PosteriorSplitRecipe):
        recipe = recipe.beside("tuned_head")
    return RecipeTable(((1, recipe),))


def _terms(settings: RunSettings) -> dict[str, Any]:
    """Return what every recipe takes."""
    certificate = settings.certificate
    return {
        **certificate.shares(),
        "first_share": certificate.first_share,
        "randomized": certificate.randomized,
    }


def _tuned_from_center(settings: RunSettings, terms: dict[str, Any]) -> Recipe:
    """Return the recipe that trains from the default adapter on one half."""
    training = settings.finetune_settings()
    return PosteriorSplitRecipe(
        **terms,
        refinement="tuned_head" if training.head_only else "finetune",
        tuning_steps=training.steps,
        learning_rate=training.learning_rate,
        pull=training.weight_decay,
    )
