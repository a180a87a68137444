"""Which recipe serves which support-set size, as published in a bundle."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from fedcert.canonical import canonical_json
from fedcert.certificates.recipes.base import Recipe
from fedcert.errors import CertificateError

__all__ = ["RecipeTable"]


@dataclass(frozen=True)
class RecipeTable:
    """A recipe for every n from the first threshold on, fixed before any client is served.

    Parameters
    ----------
    rows : tuple of (int, Recipe)
        Thresholds in increasing order, each with the recipe that serves support sets from
        that size up to the next threshold, each of a kind that certifies an adapter. The
        first may exceed 1: smaller support sets then have no recipe.
    """

    rows: tuple[tuple[int, Recipe], ...]

    def __post_init__(self) -> None:
        if not self.rows:
            raise CertificateError("a recipe table needs at least one row")
        for _, recipe in self.rows:
            recipe.require_exportable()
            _check_read_back(recipe)
        starts = self._starts()
        for start in starts:
            if not isinstance(start, int) or isinstance(start, bool) or start < 1:
                raise CertificateError(
                    f"a recipe table's 'from' must be an integer from 1 on, not {start!r}"
                )
        if any(one >= other for one, other in pairwise(starts)):
            raise CertificateError(
                f"a recipe table's 'from' values must increase, not {starts}"
            )

    def recipe_for(self, n: int) -> Recipe:
        """Return the recipe for a support set of n examples.

        Raises
        ------
        CertificateError
            If n is below the first threshold.

        Examples
        --------
        >>> from fedcert.certificates import SplitRecipe, UnionRecipe
        >>> terms = {"candidates": 1000, "delta": 0.05}
        >>> table = RecipeTable(((16, UnionRecipe(**terms)), (64, SplitRecipe(**terms))))
        >>> table.recipe_for(40).kind
        'union'
        """
        position = bisect_right(self._starts(), n) - 1
        if position < 0:
            raise CertificateError(
                f"there is no recipe for {n} examples; the smallest support set that the "
                f"recipe table serves has {self.rows[0][0]}"
            )
        return self.rows[position][1]

    def to_config(self) -> list[dict[str, Any]]:
        """Return the JSON array ``[{"from": n, "recipe": {...}}, ...]``."""
        return [{"from": start, "recipe": recipe.to_config()} for start, recipe in self.rows]

    @staticmethod
    def from_config(config: object) -> RecipeTable:
        """Make a table from its JSON array.

        Raises
        ------
        CertificateError
            If a row has other keys than "from" and "recipe", or a value is wrong.
        """
        if not isinstance(config, Sequence) or isinstance(config, str | bytes):
            raise CertificateError(f"a recipe table must be an array, not {config!r}")
        return RecipeTable(tuple(_row(entry) for entry in config))

    def _starts(self) -> list[int]:
        return [start for start, _ in self.rows]


def _row(entry: object) -> tuple[int, Recipe]:
    if not isinstance(entry, Mapping) or set(entry) != {"from", "recipe"}:
        raise CertificateError(
            f'a row of a recipe table must hold "from" and "recipe" alone, not {entry!r}'
        )
    return entry["from"], Recipe.from_config(entry["recipe"])


def _check_read_back(recipe: Recipe) -> None:
    """Make sure that whoever reads a bundle or a log gets this recipe: both are for good."""
    written = json.loads(canonical_json(recipe.to_config()))
    if Recipe.from_config(written) != recipe:
        raise CertificateError(
            f"a recipe is read back as another one than was written: {written}"
        )
