"""STEEL as published: best of M by Hoeffding's bound on all n examples.

Rezk et al., "Model Diffusion for Certifiable Few-shot Transfer Learning", arXiv 2502.06970.
It draws from the same prior as fedcert's recipes, so what differs is M, the choice and the
bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from fedcert.baselines.method import Upstream
from fedcert.baselines.searching import Searching
from fedcert.certificates import Recipe

__all__ = ["Steel"]


@dataclass(frozen=True, kw_only=True)
class Steel(Searching):
    """The published recipe, with `Upstream.steel_candidates` candidates."""

    name: ClassVar[str] = "STEEL"

    @classmethod
    def variants(cls, upstream: Upstream) -> Sequence[Self]:
        """There is nothing to tune."""
        config = {
            "kind": "steel",
            "candidates": upstream.steel_candidates,
            "delta": upstream.delta,
        }
        return [cls(upstream=upstream, recipe=Recipe.from_config(config))]
