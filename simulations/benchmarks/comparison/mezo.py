"""MeZO: fine-tuning with forward passes alone.

Malladi et al., "Fine-Tuning Language Models with Just Forward Passes" (NeurIPS 2023,
arXiv 2305.17333): a step moves along one random direction z by the difference of two losses,
(L(w + eps z) - L(w - eps z)) / (2 eps), its Definition 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import ClassVar, Self

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from fedcert.arrays import FloatArray
from fedcert.data.examples import Examples
from fedcert.methods import FedAvg, FederatedSettings
from fedcert.methods.traffic import Traffic, traffic_of
from fedcert.randomness import keyed_generator
from fedcert.simulations.benchmarks.comparison.learned import federated_settings, global_adapter
from fedcert.simulations.benchmarks.comparison.method import SplitMethod
from fedcert.simulations.benchmarks.comparison.upstream import Upstream

__all__ = ["MeZO"]


@dataclass(frozen=True, kw_only=True)
class MeZO(SplitMethod):
    """Zeroth-order fine-tuning on all choosing examples at once.

    Parameters
    ----------
    federated : FederatedSettings or None
        How the global adapter is trained that it starts from; None starts from zero.
    steps : int (default: 300)
        Steps, of two forward passes each.
    rate : float (default: 1)
        Learning rate times d: the variance of a step grows with d. It falls linearly to 0.
    epsilon : float (default: 0.01)
        Size of the perturbation.
    weight_decay : float (default: 0.01)
        Times one half of the squared norm, in the loss.
    """

    name: ClassVar[str] = "MeZO"
    federated: FederatedSettings | None = field(default_factory=FederatedSettings)
    steps: int = 300
    rate: float = 1.0
    epsilon: float = 0.01
    weight_decay: float = 0.01

    @classmethod
    def variants(cls, upstream: Upstream) -> Sequence[Self]:
        """Try two starts, two learning rates and two fractions."""
        starts = (federated_settings(upstream), None)
        return [
            cls(upstream=upstream, federated=start, rate=rate, choose_fraction=fraction)
            for start, rate, fraction in product(starts, (1.0, 5.0), (0.5, 0.25))
        ]

    def prepare(self) -> None:
        """Train the global adapter, if it starts there."""
        self._start()

    @torch.no_grad()
    def learn(self, examples: Examples) -> FloatArray:
        """Walk along random directions."""
        model, dimension = self.upstream.model, self.upstream.dimension
        prepared = model.prepare(model.task.encode(examples))
        labels = torch.from_numpy(examples.labels)
        generator = keyed_generator("mezo", self.upstream.seed)
        vector = self._start()
        for step in range(self.steps):
            direction = generator.standard_normal(dimension).astype(np.float32)
            pair = np.stack(
                [vector + self.epsilon * direction, vector - self.epsilon * direction]
            )
            logits = model.logits(prepared, torch.from_numpy(pair)).cpu()
            above, below = (
                float(cross_entropy(each, labels))
                + self.weight_decay / 2 * float((row.astype(np.float64) ** 2).sum())
                for each, row in zip(logits, pair, strict=True)
            )
            slope = (above - below) / (2 * self.epsilon)
            rate = self.rate / dimension * (1 - step / self.steps)
            vector = vector - np.float32(rate * slope) * direction
        return np.asarray(vector, dtype=np.float64)

    def traffic(self) -> Traffic:
        """Count the global adapter, if it starts there."""
        if self.federated is None:
            return Traffic(0, 0, 0)
        space, upstream = self.upstream.model.space, len(self.upstream.clients)
        return traffic_of(FedAvg(federated=self.federated), space, upstream=upstream)

    def _start(self) -> np.ndarray:
        if self.federated is None:
            return np.zeros(self.upstream.dimension, dtype=np.float32)
        return global_adapter(self.upstream, FedAvg(federated=self.federated)).astype(
            np.float32
        )
