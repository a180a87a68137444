"""Search: scoring candidates from a prior on a support set."""

from fedcert.search.batched import BatchedScorer
from fedcert.search.choosing import choose
from fedcert.search.drawing import draw
from fedcert.search.exported import exported_logits, exported_wrong
from fedcert.search.reference import ReferenceScorer
from fedcert.search.scores import Scorer, Scores
from fedcert.search.search import Winner, search
from fedcert.search.session import SupportSession

__all__ = [
    "BatchedScorer",
    "ReferenceScorer",
    "Scorer",
    "Scores",
    "SupportSession",
    "Winner",
    "choose",
    "draw",
    "exported_logits",
    "exported_wrong",
    "search",
]
