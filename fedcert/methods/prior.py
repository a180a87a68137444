"""The methods whose upstream clients upload one adapter each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from fedcert.certificates import Recipe
from fedcert.methods.base import Method
from fedcert.methods.learning import default_recipe

__all__ = ["DefaultAdapter", "PriorMethod"]


@dataclass(frozen=True, kw_only=True)
class PriorMethod(Method):
    """A prior over adapters, fitted to a pool of them or, federated, to sums."""

    kind: ClassVar[str] = "prior"
    title: ClassVar[str] = "prior"
    shares: ClassVar[str] = "a distribution over adapters"
    keeps: ClassVar[str] = "a new client's choice among candidates, or what it refines"
    learns: ClassVar[str] = "by the recipe of the settings, or the one that was planned"
    asks: ClassVar[str] = "adapters"

    def recipe(self, terms: Mapping[str, Any]) -> Recipe | None:
        """Return none: the settings name it, or upstream clients plan it."""
        return None


@dataclass(frozen=True, kw_only=True)
class DefaultAdapter(Method):
    """The mean of the pool, certified as it is: what a client has before it spends a label."""

    kind: ClassVar[str] = "default"
    title: ClassVar[str] = "default adapter"
    shares: ClassVar[str] = "the mean of the uploaded adapters"
    keeps: ClassVar[str] = "nothing"
    learns: ClassVar[str] = "nothing: the mean is certified on all examples"
    asks: ClassVar[str] = "adapters"

    def recipe(self, terms: Mapping[str, Any]) -> Recipe:
        """Certify the mean on all examples."""
        return default_recipe(terms)
