"""What fedcert is compared with, and fedcert itself, behind one interface."""

from fedcert.simulations.benchmarks.comparison.intercept import InterceptOnly
from fedcert.simulations.benchmarks.comparison.learned import (
    FedAvgLocal,
    FedAvgLora,
    FedProx,
    FedProxLocal,
    FedRep,
    Learned,
    LocalLora,
)
from fedcert.simulations.benchmarks.comparison.majority import Majority
from fedcert.simulations.benchmarks.comparison.merging import Merging, MergingSplit
from fedcert.simulations.benchmarks.comparison.method import (
    FiniteMethod,
    Method,
    Personalized,
    SplitMethod,
)
from fedcert.simulations.benchmarks.comparison.mezo import MeZO
from fedcert.simulations.benchmarks.comparison.pool_selection import PoolSelection
from fedcert.simulations.benchmarks.comparison.searching import (
    Planned,
    PosteriorSplit,
    Steel,
    Union,
)
from fedcert.simulations.benchmarks.comparison.tuning import Trial, tuned
from fedcert.simulations.benchmarks.comparison.upstream import Upstream

__all__ = [
    "METHODS",
    "FedAvgLocal",
    "FedAvgLora",
    "FedProx",
    "FedProxLocal",
    "FedRep",
    "FiniteMethod",
    "InterceptOnly",
    "Learned",
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
    "Trial",
    "Union",
    "Upstream",
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
