"""The kinds of recipes that can be read from their saved form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, TypeVar

from fedcert.errors import CertificateError, UnknownKindError
from fedcert.extensions import enter, unknown_kind

if TYPE_CHECKING:
    from fedcert.certificates.recipes.base import Recipe

__all__ = ["UnknownRecipeError", "recipe_from", "register"]

_REGISTRY: dict[str, type[Recipe]] = {}

RecipeType = TypeVar("RecipeType", bound="type[Recipe]")


class UnknownRecipeError(UnknownKindError, CertificateError):
    """No recipe of this kind is registered."""


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
    enter(_REGISTRY, cls, what="recipe")
    return cls


def recipe_from(config: object) -> Recipe:
    """Make a recipe of any registered kind from its JSON object.

    Raises
    ------
    CertificateError
        If the kind is unknown, a key is unknown or missing, or a value is wrong.
    """
    if not isinstance(config, Mapping):
        raise CertificateError(f"a recipe must be an object, not {config!r}")
    arguments = dict(config)
    cls = _class_of(arguments.pop("kind", None))
    known = {field.name for field in fields(cls)}
    needed = {field.name for field in fields(cls) if field.default is MISSING}
    if unknown := sorted(str(key) for key in arguments if key not in known):
        raise CertificateError(
            f"a recipe of kind {cls.kind!r} has no {', '.join(unknown)}; "
            f"it has {', '.join(sorted(known))}"
        )
    if missing := sorted(needed - set(arguments)):
        raise CertificateError(f"a recipe of kind {cls.kind!r} also needs {', '.join(missing)}")
    return cls(**arguments)


def _class_of(kind: object) -> type[Recipe]:
    if not isinstance(kind, str) or kind not in _REGISTRY:
        raise UnknownRecipeError(unknown_kind("recipe kind", kind, sorted(_REGISTRY)))
    return _REGISTRY[kind]
