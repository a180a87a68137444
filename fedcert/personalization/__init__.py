"""Personalizing a new client: bundle and labeled examples in, adapter and certificate out."""

from fedcert.personalization.committing import candidate_seed, commit_to
from fedcert.personalization.personalizing import Personalization, personalize

__all__ = ["Personalization", "candidate_seed", "commit_to", "personalize"]
