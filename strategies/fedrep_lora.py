"""The strategy `FedRepLora`: a shared low-rank part, and heads that stay home."""

from __future__ import annotations

from typing import Any

from fedcert.errors import SettingsError
from fedcert.methods.federated import FederatedSettings
from fedcert.methods.local_training import PersonalTraining
from fedcert.strategies.fedavg_lora import FedAvgLora

__all__ = ["FedRepLora"]


class FedRepLora(FedAvgLora):
    """FedRep (Collins et al., ICML 2021): only the low-rank part travels.

    Parameters
    ----------
    federated : FederatedSettings
        Its `head_steps` must be positive.
    personal : PersonalTraining
        How new clients train their heads; it must be `head_only`.
    **others
        As of `FedAvgLora`.
    """

    def __init__(
        self, *, federated: FederatedSettings, personal: PersonalTraining, **others: Any
    ) -> None:
        if federated.averages_head or not personal.head_only:
            raise SettingsError(
                "FedRep keeps heads local: set head_steps to 1 or more, and head_only for "
                "new clients"
            )
        super().__init__(federated=federated, personal=personal, **others)
