"""What fedcert is compared with, and fedcert itself, behind one interface."""

from fedcert.baselines.fedavg import FedAvgLora
from fedcert.baselines.fedavg_local import FedAvgLocal
from fedcert.baselines.fedprox import FedProx, FedProxLocal
from fedcert.baselines.fedrep import FedRep
from fedcert.baselines.intercept import InterceptOnly
from fedcert.baselines.local import LocalLora
from fedcert.baselines.majority import Majority
from fedcert.baselines.merging import Merging, MergingSplit
from fedcert.baselines.method import (
    FiniteMethod,
    Method,
    Personalized,
    SplitMethod,
    Traffic,
    Upstream,
)
from fedcert.baselines.mezo import MeZO
from fedcert.baselines.pool_selection import PoolSelection
from fedcert.baselines.searching import Planned, PosteriorSplit, Union
from fedcert.baselines.steel import Steel
from fedcert.baselines.tuning import Trial, tuned
from fedcert.methods.federated import FederatedSettings, federated_average

__all__ = [
    "METHODS",
    "FedAvgLocal",
    "FedAvgLora",
    "FedProx",
    "FedProxLocal",
    "FedRep",
    "FederatedSettings",
    "FiniteMethod",
    "InterceptOnly",
    "LocalLora",
    "Majority",
    "MeZO",
    "Merging",
    "MergingSplit",
    "Method",
    "Personalized",
    "Planned",
    "PoolSelection",
    "PosteriorSplit",
    "SplitMethod",
    "Steel",
    "Traffic",
    "Trial",
    "Union",
    "Upstream",
    "federated_average",
    "tuned",
]

METHODS: tuple[type[Method], ...] = (
    Planned,
    Union,
    PosteriorSplit,
    Majority,
    InterceptOnly,
    LocalLora,
    FedAvgLora,
    FedAvgLocal,
    FedProx,
    FedProxLocal,
    FedRep,
    Steel,
    PoolSelection,
    Merging,
    MergingSplit,
    MeZO,
)
"""Every method, in the order of the tables; a benchmark compares them all."""
