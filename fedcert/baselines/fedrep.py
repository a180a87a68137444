"""FedRep: the low-rank part is shared, every client has a head of its own.

Collins et al., "Exploiting Shared Representations for Personalized Federated Learning",
ICML 2021.
"""

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
from fedcert.baselines.local import around
from fedcert.baselines.method import (
    SplitMethod,
    Traffic,
    Upstream,
    constant_adapter,
    one_label,
)
from fedcert.data.examples import Examples
from fedcert.errors import SettingsError
from fedcert.methods.federated import FederatedSettings
from fedcert.methods.local_training import PersonalTraining
from fedcert.priors.base import FloatArray

__all__ = ["FedRep"]


@dataclass(frozen=True, kw_only=True)
class FedRep(SplitMethod):
    """Trains a head on the federation's low-rank part.

    Parameters
    ----------
    federated : FederatedSettings
        How the shared part is trained; `head_steps` must be positive.
    personal : PersonalTraining
        How the new client trains its head.
    """

    name: ClassVar[str] = "FedRep"
    federated: FederatedSettings = field(
        default_factory=lambda: FederatedSettings(head_steps=20)
    )
    personal: PersonalTraining = field(default_factory=lambda: PersonalTraining(head_only=True))

    def __post_init__(self) -> None:
        if self.federated.averages_head:
            raise SettingsError("FedRep keeps heads local: set head_steps to 1 or more")
        if not self.upstream.model.space.head:
            raise SettingsError(
                "FedRep trains heads, and this base model has none; leave this method out"
            )

    @classmethod
    def variants(cls, upstream: Upstream) -> Sequence[Self]:
        """Try four settings and two fractions."""
        federated = replace(federated_settings(upstream, 5), head_steps=20)
        return [
            cls(
                upstream=upstream,
                federated=federated,
                personal=PersonalTraining(settings=settings, head_only=True),
                choose_fraction=fraction,
            )
            for settings, fraction in product(around(upstream.training), (0.5, 0.25))
        ]

    def prepare(self) -> None:
        """Train the global adapter."""
        global_adapter(self.upstream, self.federated)

    def learn(self, examples: Examples) -> FloatArray:
        """Train a head from zero; from one label alone, predict that label."""
        if one_label(examples):
            return constant_adapter(self.upstream, examples)
        return self.personal.adapter(
            global_adapter(self.upstream, self.federated),
            self.upstream.model,
            examples,
            seed=self.upstream.seed,
        )

    def traffic(self) -> Traffic:
        """Count the low-rank part alone: heads stay with their clients."""
        return federated_traffic(self.upstream, self.federated)
