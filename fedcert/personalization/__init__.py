"""Personalizing a new client: bundle and labeled examples in, adapter and certificate out."""

from fedcert.personalization.committing import candidate_seed, commit_to, order_seed
from fedcert.personalization.personalizing import Personalization, personalize
from fedcert.personalization.points import CertifiedPoint, CertifiedPoints, personalize_points

__all__ = [
    "CertifiedPoint",
    "CertifiedPoints",
    "Personalization",
    "candidate_seed",
    "commit_to",
    "order_seed",
    "personalize",
    "personalize_points",
]
