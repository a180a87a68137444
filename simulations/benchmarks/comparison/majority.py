"""The majority baseline: always predict the label that was most frequent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedcert.certificates import binomial_upper_bound
from fedcert.data.examples import Examples
from fedcert.methods.traffic import Traffic
from fedcert.simulations.benchmarks.comparison.method import Method, Personalized

__all__ = ["Majority"]


@dataclass(frozen=True, kw_only=True)
class Majority(Method):
    """Predicts one label whatever the input; the K constant predictors share delta."""

    name: ClassVar[str] = "majority"
    runs_model: ClassVar[bool] = False

    def personalize(self, examples: Examples) -> Personalized:
        """Take the most frequent label of all n, at a K-th of delta."""
        bias, constants = self.upstream.head_bias, self.upstream.constants
        counts = np.bincount(examples.labels, minlength=bias.stop - bias.start)
        errors, n = int(len(examples) - counts.max()), len(examples)
        return Personalized(
            adapters=constants[[int(counts.argmax())]],
            certificate=binomial_upper_bound(errors, n, self.upstream.delta / len(constants)),
        )

    def traffic(self) -> Traffic:
        """Return zeros: nothing is sent."""
        return Traffic(0, 0, 0)
