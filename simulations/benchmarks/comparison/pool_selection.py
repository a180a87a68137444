"""Pool selection: the best of other clients' adapters, as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from fedcert.arrays import FloatArray
from fedcert.methods.traffic import Traffic
from fedcert.simulations.benchmarks.comparison.method import FiniteMethod
from fedcert.simulations.benchmarks.comparison.upstream import Upstream

__all__ = ["PoolSelection"]


@dataclass(frozen=True, kw_only=True)
class PoolSelection(FiniteMethod):
    """Hands out one of the pool, and discloses them all.

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

    def adapters(self) -> FloatArray:
        """Return the pool's first adapters."""
        return self.upstream.pool[: self.size or None]

    def traffic(self) -> Traffic:
        """Count every adapter that a new client chooses among."""
        size = self.upstream.adapter_bytes
        return Traffic(size, 0, size * len(self.adapters()))
