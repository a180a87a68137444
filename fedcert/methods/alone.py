"""Methods that ask upstream clients nothing: what a new client has without a federation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from fedcert.adapters.space import AdapterSpace
from fedcert.certificates import Recipe
from fedcert.errors import MethodRefusedError
from fedcert.methods.base import Method
from fedcert.methods.learning import default_recipe, finetune_recipe

__all__ = ["Local", "ZeroShot"]


@dataclass(frozen=True, kw_only=True)
class Local(Method):
    """Fine-tunes an adapter of the client's own from zero."""

    kind: ClassVar[str] = "local"
    title: ClassVar[str] = "local"
    shares: ClassVar[str] = "nothing"
    keeps: ClassVar[str] = "a new client's adapter"
    learns: ClassVar[str] = "trains an adapter from zero"

    def recipe(self, terms: Mapping[str, Any]) -> Recipe:
        """Train on some examples, and certify on the others."""
        return finetune_recipe(self.personal, self.choose_fraction, terms)


@dataclass(frozen=True, kw_only=True)
class ZeroShot(Method):
    """The base model as it is, where the labels' names say what they mean."""

    kind: ClassVar[str] = "zero-shot"
    title: ClassVar[str] = "zero-shot"
    shares: ClassVar[str] = "nothing"
    keeps: ClassVar[str] = "nothing"
    learns: ClassVar[str] = "nothing: the base model is certified on all examples"

    def check(self, space: AdapterSpace) -> None:
        """Raise `MethodRefusedError` if the base model has a head that would stay untrained."""
        if space.head and not space.names_head:
            raise MethodRefusedError(
                "setting 'method': zero-shot takes a base model whose logits come from the "
                "labels' names or phrases; this one has a head that would stay untrained"
            )

    def recipe(self, terms: Mapping[str, Any]) -> Recipe:
        """Certify the base model on all examples."""
        return default_recipe(terms)
