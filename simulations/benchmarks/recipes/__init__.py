"""Recipes for comparison only: replayed, never issued. Importing registers them.

What they certify is no adapter that a client could take home, so the library does without them.
"""

from fedcert.simulations.benchmarks.recipes.compression import CompressionRecipe
from fedcert.simulations.benchmarks.recipes.gibbs import GibbsRecipe, VoteRecipe
from fedcert.simulations.benchmarks.recipes.known_best import KnownBestRecipe, limit

__all__ = ["CompressionRecipe", "GibbsRecipe", "KnownBestRecipe", "VoteRecipe", "limit"]
