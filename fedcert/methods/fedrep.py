"""FedRep: the low-rank part is shared, every client has a head of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from fedcert.adapters.space import AdapterSpace
from fedcert.certificates import Recipe
from fedcert.errors import MethodRefusedError
from fedcert.methods.adapters import AdapterMethod
from fedcert.methods.learning import split_recipe

__all__ = ["FedRep"]


@dataclass(frozen=True, kw_only=True)
class FedRep(AdapterMethod):
    """Averages the low-rank part alone; a new client trains a head on it.

    Collins et al., "Exploiting Shared Representations for Personalized Federated Learning"
    (ICML 2021). A new client's head is the one that is best on its choosing examples up to a
    penalty that these choose as well; where the head is made from names it starts at them.
    """

    kind: ClassVar[str] = "fedrep"
    title: ClassVar[str] = "FedRep"
    shares: ClassVar[str] = "the low-rank part of the adapter"
    keeps: ClassVar[str] = "a head of each client, upstream ones included"
    learns: ClassVar[str] = "trains a head on the shared part"
    own_heads: ClassVar[bool] = True

    def check(self, space: AdapterSpace) -> None:
        """Raise `MethodRefusedError` if there is no head that could be personal."""
        if not space.head:
            raise MethodRefusedError(
                "setting 'method': fedrep trains heads, and this base model has none; choose "
                "another method"
            )

    def recipe(self, terms: Mapping[str, Any]) -> Recipe:
        """Train a head on some examples, and certify on the others."""
        return split_recipe("tuned_head", self.choose_fraction, terms)
