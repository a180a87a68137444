"""FedAvg-LoRA: one adapter for everybody, by federated averaging."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from fedcert.adapters.finetune import FinetuneSettings
from fedcert.baselines.method import (
    BYTES_PER_NUMBER,
    FiniteMethod,
    Traffic,
    Upstream,
    float64,
)
from fedcert.methods.federated import FederatedSettings, federated_average
from fedcert.methods.local_training import body_part
from fedcert.priors.base import FloatArray

__all__ = ["FedAvgLora", "federated_settings", "federated_traffic", "global_adapter"]


@dataclass(frozen=True, kw_only=True)
class FedAvgLora(FiniteMethod):
    """Hands out the global adapter as it is.

    It owes nothing to the new client's examples, so all n of them certify it.

    Parameters
    ----------
    federated : FederatedSettings
        How it is trained.
    """

    name: ClassVar[str] = "FedAvg-LoRA"
    federated: FederatedSettings = field(default_factory=FederatedSettings)

    @classmethod
    def variants(cls, upstream: Upstream) -> Sequence[Self]:
        """Try few and many local steps, and two learning rates."""
        return [
            cls(upstream=upstream, federated=federated_settings(upstream, steps, rate))
            for steps in (5, 20)
            for rate in (1.0, 1 / 3)
        ]

    def prepare(self) -> None:
        """Train the global adapter."""
        global_adapter(self.upstream, self.federated)

    def adapters(self) -> FloatArray:
        """Return the global adapter."""
        return global_adapter(self.upstream, self.federated)[None]

    def traffic(self) -> Traffic:
        """Count an adapter for each round of a client, and one for a new client."""
        return federated_traffic(self.upstream, self.federated)


def federated_settings(
    upstream: Upstream, steps: int = 20, rate: float = 1.0, *, proximal_mu: float = 0.0
) -> FederatedSettings:
    """Return federated training with a multiple of the upstream learning rate.

    Parameters
    ----------
    upstream : Upstream
        The task, with the settings that upstream clients train by.
    steps : int (default: 20)
        Local steps in each round.
    rate : float (default: 1.0)
        Multiple of the upstream learning rate.
    proximal_mu : float (default: 0.0)
        Weight of FedProx's proximal term.

    Returns
    -------
    FederatedSettings
        Settings of a run with the usual number of rounds.
    """
    local: FinetuneSettings = replace(
        upstream.training,
        steps=steps,
        batch_size=32,
        learning_rate=upstream.training.learning_rate * rate,
    )
    return FederatedSettings(local=local, proximal_mu=proximal_mu)


def global_adapter(upstream: Upstream, settings: FederatedSettings) -> FloatArray:
    """Return the federation's adapter, float64 of shape ``(d,)``, trained once."""
    identity = {
        "kind": "federated average",
        "space": upstream.model.space.digest,
        "clients": sorted(upstream.clients),
        "settings": settings.to_config(),
        "seed": upstream.seed,
    }
    return upstream.once(
        identity,
        lambda: float64(
            federated_average(
                upstream.model,
                upstream.clients,
                settings=settings,
                seed=upstream.seed,
            )
        ),
    )


def federated_traffic(upstream: Upstream, settings: FederatedSettings) -> Traffic:
    """Return what federated averaging transfers, averaged over the upstream clients."""
    space, clients = upstream.model.space, len(upstream.clients)
    numbers = space.dimension if settings.averages_head else body_part(space).stop
    share = min(settings.clients_per_round or clients, clients) / clients
    sent = round(numbers * BYTES_PER_NUMBER * settings.rounds * share)
    return Traffic(up=sent, down=numbers * BYTES_PER_NUMBER)
