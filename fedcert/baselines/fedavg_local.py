"""FedAvg-LoRA, then local fine-tuning from the global adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import ClassVar, Self

from fedcert.baselines.fedavg import (
    federated_settings,
    federated_traffic,
    global_adapter,
)
from fedcert.baselines.method import SplitMethod, Traffic, Upstream, one_label
from fedcert.data.examples import Examples
from fedcert.methods.federated import FederatedSettings
from fedcert.methods.local_training import PersonalTraining
from fedcert.priors.base import FloatArray

__all__ = ["FedAvgLocal"]


@dataclass(frozen=True, kw_only=True)
class FedAvgLocal(SplitMethod):
    """Fine-tunes the global adapter on the client's choosing examples.

    Parameters
    ----------
    federated : FederatedSettings
        How the global adapter is trained.
    personal : PersonalTraining
        How the client goes on from there.
    """

    name: ClassVar[str] = "FedAvg-LoRA + local"
    federated: FederatedSettings = field(default_factory=FederatedSettings)
    personal: PersonalTraining = field(default_factory=PersonalTraining)

    @classmethod
    def variants(cls, upstream: Upstream) -> Sequence[Self]:
        """Try a learning rate, a third of it with three proximal weights, and two fractions."""
        plain = replace(upstream.training, weight_decay=0.0)
        slow = replace(plain, learning_rate=plain.learning_rate / 3)
        tried = ((plain, 0.01), (slow, 0.03), (slow, 0.003), (slow, 0.0003))
        return [
            cls(
                upstream=upstream,
                federated=cls.federation(upstream),
                personal=PersonalTraining(settings=settings, proximal_mu=proximal_mu),
                choose_fraction=fraction,
            )
            for (settings, proximal_mu), fraction in product(tried, (0.5, 0.25))
        ]

    @classmethod
    def federation(cls, upstream: Upstream) -> FederatedSettings:
        """Return how the global adapter is trained that variants start from."""
        return federated_settings(upstream)

    def prepare(self) -> None:
        """Train the global adapter."""
        global_adapter(self.upstream, self.federated)

    def learn(self, examples: Examples) -> FloatArray:
        """Fine-tune; from one label alone, keep the global adapter."""
        start = global_adapter(self.upstream, self.federated)
        if one_label(examples):
            return start
        return self.personal.adapter(
            start,
            self.upstream.model,
            examples,
            seed=self.upstream.seed,
        )

    def traffic(self) -> Traffic:
        """Count the global adapter alone."""
        return federated_traffic(self.upstream, self.federated)
