"""FedProx: federated averaging with a proximal term, alone or with local training after it.

Li et al., "Federated Optimization in Heterogeneous Networks", arXiv 1812.06127.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar, Self

from fedcert.baselines.fedavg import FedAvgLora, federated_settings
from fedcert.baselines.fedavg_local import FedAvgLocal
from fedcert.baselines.method import Upstream
from fedcert.methods.local_training import PersonalTraining

__all__ = ["FedProx", "FedProxLocal"]

_PROXIMAL_MUS = (0.03, 0.003)


@dataclass(frozen=True, kw_only=True)
class FedProx(FedAvgLora):
    """Hands out the global adapter that was trained with a proximal term, as it is."""

    name: ClassVar[str] = "FedProx"

    @classmethod
    def variants(cls, upstream: Upstream) -> Sequence[Self]:
        """Try two weights of the proximal term and two learning rates."""
        return [
            cls(
                upstream=upstream,
                federated=federated_settings(upstream, rate=rate, proximal_mu=proximal_mu),
            )
            for proximal_mu, rate in product(_PROXIMAL_MUS, (1.0, 1 / 3))
        ]


@dataclass(frozen=True, kw_only=True)
class FedProxLocal(FedAvgLocal):
    """Pulls clients to the global adapter, upstream and when a new client fine-tunes."""

    name: ClassVar[str] = "FedProx + local"

    @classmethod
    def variants(cls, upstream: Upstream) -> Sequence[Self]:
        """Try two proximal weights, the same everywhere, and two rates and fractions."""
        plain = replace(upstream.training, weight_decay=0.0)
        rates = (plain, replace(plain, learning_rate=plain.learning_rate / 3))
        return [
            cls(
                upstream=upstream,
                federated=replace(federated_settings(upstream), proximal_mu=proximal_mu),
                personal=PersonalTraining(settings=settings, proximal_mu=proximal_mu),
                choose_fraction=fraction,
            )
            for settings, proximal_mu, fraction in product(rates, _PROXIMAL_MUS, (0.5, 0.25))
        ]
