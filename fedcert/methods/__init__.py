"""Methods: how a federation learns, and how a new client is personalized."""

from fedcert.methods.adapters import AdapterMethod, FedAvg, FedAvgLocal
from fedcert.methods.alone import Local, ZeroShot
from fedcert.methods.base import AveragingMethod, Method, State, Update
from fedcert.methods.federated import FederatedSettings
from fedcert.methods.fedrep import FedRep
from fedcert.methods.learning import default_recipe, finetune_recipe, split_recipe
from fedcert.methods.local_training import PersonalTraining
from fedcert.methods.prior import DefaultAdapter, PriorMethod
from fedcert.methods.pulled import Ditto, FedProx, FedProxLocal, MrMtl
from fedcert.methods.registry import (
    METHODS,
    averaging_method,
    method_from_config,
    register_method,
)

__all__ = [
    "METHODS",
    "AdapterMethod",
    "AveragingMethod",
    "DefaultAdapter",
    "Ditto",
    "FedAvg",
    "FedAvgLocal",
    "FedProx",
    "FedProxLocal",
    "FedRep",
    "FederatedSettings",
    "Local",
    "Method",
    "MrMtl",
    "PersonalTraining",
    "PriorMethod",
    "State",
    "Update",
    "ZeroShot",
    "averaging_method",
    "default_recipe",
    "finetune_recipe",
    "method_from_config",
    "register_method",
    "split_recipe",
]

for _method in (
    PriorMethod,
    DefaultAdapter,
    ZeroShot,
    Local,
    FedAvg,
    FedAvgLocal,
    FedProx,
    FedProxLocal,
    FedRep,
    Ditto,
    MrMtl,
):
    register_method(_method)
