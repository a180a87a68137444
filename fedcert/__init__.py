"""Certified few-shot personalization for federated learning on Flower.

What is named here is the Python interface; everything is imported when it is first used.
"""

from typing import TYPE_CHECKING

from fedcert.lazy import exporting

if TYPE_CHECKING:
    from fedcert.api import fit_prior, load_bundle, personalize
    from fedcert.bundles import Bundle
    from fedcert.certificates import Certificate, Recipe, VerificationReport, certify
    from fedcert.classifier import load_classifier
    from fedcert.data import Examples, read_examples
    from fedcert.errors import FedcertError
    from fedcert.priors import Prior
    from fedcert.verification import verify

__version__ = "0.1.0"
__all__ = [
    "Bundle",
    "Certificate",
    "Examples",
    "FedcertError",
    "Prior",
    "Recipe",
    "VerificationReport",
    "__version__",
    "certify",
    "fit_prior",
    "load_bundle",
    "load_classifier",
    "personalize",
    "read_examples",
    "verify",
]

__getattr__ = exporting(
    __name__,
    {
        "Bundle": "fedcert.bundles",
        "Certificate": "fedcert.certificates",
        "Examples": "fedcert.data",
        "FedcertError": "fedcert.errors",
        "Prior": "fedcert.priors",
        "Recipe": "fedcert.certificates",
        "VerificationReport": "fedcert.certificates",
        "certify": "fedcert.certificates",
        "fit_prior": "fedcert.api",
        "load_bundle": "fedcert.api",
        "load_classifier": "fedcert.classifier",
        "personalize": "fedcert.api",
        "read_examples": "fedcert.data",
        "verify": "fedcert.verification",
    },
)
