"""Intercept only: the global adapter, with one label's logit shifted for each client.

It shows how much of personalization is no more than another base rate, or threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np

from fedcert.baselines.fedavg import (
    federated_settings,
    federated_traffic,
    global_adapter,
)
from fedcert.baselines.method import FiniteMethod, Traffic, Upstream, head_bias
from fedcert.methods.federated import FederatedSettings
from fedcert.priors.base import FloatArray

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
        global_adapter(self.upstream, self.federated)

    def adapters(self) -> FloatArray:
        """Return the global adapter, and after it each shift of it."""
        adapter = global_adapter(self.upstream, self.federated)
        place = head_bias(self.upstream)
        sizes = self.largest * np.arange(1, self.steps + 1) / self.steps
        found = [adapter]
        for label in range(place.start + 1, place.stop):
            for shift in np.concatenate([-sizes, sizes]):
                found.append(adapter.copy())
                found[-1][label] += shift
        return np.stack(found)

    def traffic(self) -> Traffic:
        """Count the global adapter alone."""
        return federated_traffic(self.upstream, self.federated)
