"""Pool selection: the best of other clients' adapters, as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from fedcert.baselines.method import (
    BYTES_PER_NUMBER,
    Method,
    Personalized,
    Traffic,
    Upstream,
)
from fedcert.certificates import binomial_upper_bound
from fedcert.data.examples import Examples

__all__ = ["PoolSelection"]


@dataclass(frozen=True, kw_only=True)
class PoolSelection(Method):
    """Chooses on all n examples; the adapters share delta. It discloses them.

    Parameters
    ----------
    size : int (default: 0)
        Choose among so many of the pool's first adapters; 0 takes all.
    """

    name: ClassVar[str] = "pool selection"
    size: int = 0

    @classmethod
    def variants(cls, upstream: Upstream) -> Sequence[Self]:
        """Try a quarter of the pool, half of it, and all."""
        count = len(upstream.pool)
        sizes = sorted({max(1, count // share) for share in (4, 2, 1)})
        return [cls(upstream=upstream, size=size) for size in sizes]

    def personalize(self, examples: Examples) -> Personalized:
        """Take the adapter with the fewest errors, the lowest loss among equals."""
        adapters = self.upstream.pool[: self.size or None]
        winner, errors, _ = self.score(adapters, examples).best()
        budget = self.upstream.delta / len(adapters)
        return Personalized(
            adapters=adapters[[winner]],
            certificate=binomial_upper_bound(errors, len(examples), budget),
        )

    def traffic(self) -> Traffic:
        """Count every adapter that a new client chooses among."""
        size = self.upstream.dimension * BYTES_PER_NUMBER
        return Traffic(up=size, down=size * len(self.upstream.pool[: self.size or None]))
