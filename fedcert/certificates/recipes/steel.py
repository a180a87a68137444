"""STEEL as published: the union recipe with Hoeffding's bound, kept as a baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedcert.certificates.bounds import hoeffding_upper_bound
from fedcert.certificates.recipes.base import Choice, register
from fedcert.certificates.recipes.union import UnionRecipe

__all__ = ["SteelRecipe"]


@register
@dataclass(frozen=True, kw_only=True)
class SteelRecipe(UnionRecipe):
    """Choose and certify on the same n examples, by Hoeffding's inequality.

    Rezk et al., arXiv 2502.06970, Eq. 3: k/n + sqrt(ln(M/delta) / (2n)). Valid, and never
    tighter than `UnionRecipe`; it is here to be compared with.
    """

    kind: ClassVar[str] = "steel"
    randomizes: ClassVar[bool] = False

    def bound(self, errors: int, trials: int, choice: Choice | None = None) -> float:
        """Return Hoeffding's bound; see `Recipe.bound` for arguments and errors."""
        return hoeffding_upper_bound(errors, trials, self.budget(choice))

    @property
    def _bound_name(self) -> str:
        return "Hoeffding's inequality"
