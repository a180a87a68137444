"""Methods: how a federation learns, and how a new client is personalized."""

from fedcert.methods.adapters import FedAvg, FedAvgLocal
from fedcert.methods.base import AveragingMethod, Method, State, Update
from fedcert.methods.federated import FederatedSettings
from fedcert.methods.local_training import PersonalTraining
from fedcert.methods.prior import DefaultAdapter, PriorMethod
from fedcert.methods.registry import (
    METHODS,
    averaging_method,
    method_from_config,
    register_method,
)

__all__ = [
    "METHODS",
    "AveragingMethod",
    "DefaultAdapter",
    "FedAvg",
    "FedAvgLocal",
    "FederatedSettings",
    "Method",
    "PersonalTraining",
    "PriorMethod",
    "State",
    "Update",
    "averaging_method",
    "method_from_config",
    "register_method",
]

for _method in (PriorMethod, DefaultAdapter, FedAvg, FedAvgLocal):
    register_method(_method)
