"""Intercept only: the global adapter, with one label's logit shifted for each client.

It shows how much of personalization is no more than another base rate, or threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np

from fedcert.arrays import FloatArray
from fedcert.methods import FedAvg, FederatedSettings
from fedcert.methods.traffic import Traffic, traffic_of
from fedcert.simulations.benchmarks.comparison.learned import federated_settings, global_adapter
from fedcert.simulations.benchmarks.comparison.method import FiniteMethod
from fedcert.simulations.benchmarks.comparison.upstream import Upstream

__all__ = ["InterceptOnly"]


@dataclass(frozen=True, kw_only=True)
class InterceptOnly(FiniteMethod):
    """Chooses a shift from a fixed grid on all n examples; all shifts share delta.

    Parameters
    ----------
    federated : FederatedSettings
        How the global adapter is trained.
    steps : int (default: 6)
        Shifts on either side of zero, for each label but the first.
    largest : float (default: 3)
        The largest shift, in logits.
    """

    name: ClassVar[str] = "intercept only"
    federated: FederatedSettings = field(default_factory=FederatedSettings)
    steps: int = 6
    largest: float = 3.0

    @classmethod
    def variants(cls, upstream: Upstream) -> Sequence[Self]:
        """Try coarse and fine grids, of two widths, on two global adapters."""
        return [
            cls(
                upstream=upstream,
                federated=federated_settings(upstream, local),
                steps=steps,
                largest=largest,
            )
            for local in (5, 20)
            for steps in (3, 8)
            for largest in (1.5, 4.0)
        ]

    def prepare(self) -> None:
        """Train the global adapter."""
        self.everyones()

    def everyones(self) -> FloatArray:
        """Return the global adapter."""
        return global_adapter(self.upstream, FedAvg(federated=self.federated))

    def adapters(self) -> FloatArray:
        """Return the global adapter, and after it each shift of it."""
        adapter, place = self.everyones(), self.upstream.head_bias
        sizes = self.largest * np.arange(1, self.steps + 1) / self.steps
        found = [adapter]
        for label in range(place.start + 1, place.stop):
            for shift in np.concatenate([-sizes, sizes]):
                found.append(adapter.copy())
                found[-1][label] += shift
        return np.stack(found)

    def traffic(self) -> Traffic:
        """Count the global adapter alone."""
        space, upstream = self.upstream.model.space, len(self.upstream.clients)
        return traffic_of(FedAvg(federated=self.federated), space, upstream=upstream)
