"""The strategy `FedProxLora`: FedAvg whose clients are pulled to the global adapter."""

from __future__ import annotations

from typing import Any

from fedcert.errors import SettingsError
from fedcert.methods.federated import FederatedSettings
from fedcert.strategies.fedavg_lora import FedAvgLora

__all__ = ["FedProxLora"]


class FedProxLora(FedAvgLora):
    """FedProx (Li et al., arXiv 1812.06127): the server averages as ever.

    Parameters
    ----------
    federated : FederatedSettings
        Its `proximal_mu` must be positive.
    **others
        As of `FedAvgLora`.
    """

    def __init__(self, *, federated: FederatedSettings, **others: Any) -> None:
        if not federated.proximal_mu:
            raise SettingsError(
                "FedProx with proximal_mu = 0 is FedAvg: set proximal_mu, or use FedAvgLora"
            )
        super().__init__(federated=federated, **others)
