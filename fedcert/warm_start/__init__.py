"""A federation improves its base model before it harvests adapters; no Flower in here."""

from fedcert.warm_start.learning import LocalRound, TrunkTraining, local_round, trunk_part
from fedcert.warm_start.merging import PROVENANCE, merge, merged_folder
from fedcert.warm_start.trunk import Trunk, TrunkTensors

__all__ = [
    "PROVENANCE",
    "LocalRound",
    "Trunk",
    "TrunkTensors",
    "TrunkTraining",
    "local_round",
    "merge",
    "merged_folder",
    "trunk_part",
]
