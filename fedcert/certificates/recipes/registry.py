"""The kinds of recipes that can be read from their saved form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from fedcert.errors import CertificateError, UnknownKindError
from fedcert.extensions import Kinds

if TYPE_CHECKING:
    from fedcert.certificates.recipes.base import Recipe

__all__ = ["RECIPES", "UnknownRecipeError", "recipe_from", "register"]

RecipeType = TypeVar("RecipeType", bound="type[Recipe]")


class UnknownRecipeError(UnknownKindError, CertificateError):
    """No recipe of this kind is registered."""


RECIPES: Kinds[Recipe] = Kinds("recipe", UnknownRecipeError, asked="recipe kind")
"""Every recipe that certificates may name."""


def register(cls: RecipeType) -> RecipeType:
    """Let `Recipe.from_config` find a class by its `kind`; a class decorator.

    Raises
    ------
    ValueError
        If the class is not complete, or another one has its kind.
    """
    # Without a decorator of its own its new fields would not be part of its saved form.
    if "__dataclass_params__" not in vars(cls):
        raise ValueError(
            f"the recipe {cls.__name__} must be a frozen dataclass: write "
            "@dataclass(frozen=True, kw_only=True) between @register and class"
        )
    return RECIPES.register(cls)


def recipe_from(config: object) -> Recipe:
    """Make a recipe of any registered kind from its JSON object.

    Raises
    ------
    CertificateError
        If the kind is unknown, a key is unknown or missing, or a value is wrong.
    """
    if not isinstance(config, Mapping):
        raise CertificateError(f"a recipe must be an object, not {config!r}")
    return RECIPES.made(config, CertificateError)
