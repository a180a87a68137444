"""Fitting the prior to a pool, with adapters held out for the audits, and making the bundle."""

from fedcert.fitting.bundle import bundle_of, make_bundle, privacy_notes
from fedcert.fitting.noised_mean import noised_mean
from fedcert.fitting.prior import FittedPrior, audit_again, audit_prior, fit_prior

__all__ = [
    "FittedPrior",
    "audit_again",
    "audit_prior",
    "bundle_of",
    "fit_prior",
    "make_bundle",
    "noised_mean",
    "privacy_notes",
]
