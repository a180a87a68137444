"""Recipes: how a support set is spent. One variant a file; importing registers them."""

from fedcert.certificates.recipes.base import (
    Choice,
    Chosen,
    FirstStage,
    LedgerEntry,
    Recipe,
    Session,
    Span,
    Subject,
    register,
)
from fedcert.certificates.recipes.default import DefaultRecipe
from fedcert.certificates.recipes.hybrid import HybridRecipe
from fedcert.certificates.recipes.mixed_union import MixedUnionRecipe
from fedcert.certificates.recipes.posterior_split import PosteriorSplitRecipe
from fedcert.certificates.recipes.split import SplitRecipe
from fedcert.certificates.recipes.steel import SteelRecipe
from fedcert.certificates.recipes.swap import SwapRecipe
from fedcert.certificates.recipes.table import RecipeTable
from fedcert.certificates.recipes.union import UnionRecipe
from fedcert.certificates.recipes.weighted_union import WeightedUnionRecipe

__all__ = [
    "Choice",
    "Chosen",
    "DefaultRecipe",
    "FirstStage",
    "HybridRecipe",
    "LedgerEntry",
    "MixedUnionRecipe",
    "PosteriorSplitRecipe",
    "Recipe",
    "RecipeTable",
    "Session",
    "Span",
    "SplitRecipe",
    "SteelRecipe",
    "Subject",
    "SwapRecipe",
    "UnionRecipe",
    "WeightedUnionRecipe",
    "register",
]
