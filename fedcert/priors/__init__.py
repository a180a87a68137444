"""Priors: generative distributions over the adapter space."""

from fedcert.priors.base import Prior
from fedcert.priors.diffusion import DiffusionPrior, DiffusionTraining
from fedcert.priors.gaussian import GaussianPrior
from fedcert.priors.interpolated import InterpolatedPrior
from fedcert.priors.latent import LatentSpace
from fedcert.priors.memorization import NearestPoolAudit, audit_nearest_pool
from fedcert.priors.point import PointPrior
from fedcert.priors.profile import best_of, risk_profile
from fedcert.priors.registry import (
    PRIORS,
    prior_from_parts,
    register_derived,
    register_prior,
)
from fedcert.priors.resampling import JitterPrior, ResamplingPrior

__all__ = [
    "PRIORS",
    "DiffusionPrior",
    "DiffusionTraining",
    "GaussianPrior",
    "InterpolatedPrior",
    "JitterPrior",
    "LatentSpace",
    "NearestPoolAudit",
    "PointPrior",
    "Prior",
    "ResamplingPrior",
    "audit_nearest_pool",
    "best_of",
    "prior_from_parts",
    "register_derived",
    "register_prior",
    "risk_profile",
]

for _fitted in (DiffusionPrior, GaussianPrior, JitterPrior, ResamplingPrior):
    register_prior(_fitted)
for _derived in (InterpolatedPrior, PointPrior):
    register_derived(_derived)
