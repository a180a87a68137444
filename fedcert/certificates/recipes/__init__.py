"""Recipes: how a support set is spent. One variant a file; importing registers them."""

from fedcert.certificates.recipes.base import LedgerEntry, Recipe, Span, register
from fedcert.certificates.recipes.split import SplitRecipe
from fedcert.certificates.recipes.steel import SteelRecipe
from fedcert.certificates.recipes.table import RecipeTable
from fedcert.certificates.recipes.union import UnionRecipe

__all__ = [
    "LedgerEntry",
    "Recipe",
    "RecipeTable",
    "Span",
    "SplitRecipe",
    "SteelRecipe",
    "UnionRecipe",
    "register",
]
