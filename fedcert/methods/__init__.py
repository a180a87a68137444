"""Methods: how a federation learns, and how a new client is personalized."""

from fedcert.methods.adapters import AdapterMethod, FedAvg, FedAvgLocal
from fedcert.methods.alone import Local, ZeroShot
from fedcert.methods.base import AveragingMethod, Method, State, Update
from fedcert.methods.federated import FederatedSettings
from fedcert.methods.fedl2p import FedL2P
from fedcert.methods.fedp2eft import BayesTune, FedP2EFT
from fedcert.methods.fedrep import FedRep
from fedcert.methods.learning import (
    default_recipe,
    finetune_recipe,
    learned_recipe,
    split_recipe,
)
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
    "BayesTune",
    "DefaultAdapter",
    "Ditto",
    "FedAvg",
    "FedAvgLocal",
    "FedL2P",
    "FedP2EFT",
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
    "learned_recipe",
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
    BayesTune,
    FedP2EFT,
    FedL2P,
):
    register_method(_method)
