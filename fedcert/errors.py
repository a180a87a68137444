"""Errors that fedcert raises for a user's or a peer's mistake.

Every message names what is wrong, where, and what to do about it. The command line
prints the message alone; library users catch `FedcertError` or one of its children.
"""

from __future__ import annotations

__all__ = [
    "AdapterError",
    "BundleError",
    "CertificateError",
    "DataError",
    "FedcertError",
    "ModelError",
    "PoolError",
    "PriorError",
    "ProtocolError",
    "RefusalError",
    "RunError",
    "SettingsError",
    "UnknownKindError",
]


class FedcertError(Exception):
    """Base of every error that fedcert raises on purpose."""


class SettingsError(FedcertError):
    """A setting is missing, unknown, or out of its range."""


class DataError(FedcertError):
    """Labelled examples are missing, malformed, or do not fit the task."""


class ModelError(FedcertError):
    """A base model cannot be loaded, or has a layout that fedcert does not know."""


class AdapterError(FedcertError):
    """An adapter does not belong to the adapter space, or its file is damaged."""


class PoolError(FedcertError):
    """An upload was rejected, or the pool on disk is damaged."""


class PriorError(FedcertError):
    """A prior cannot be fitted, loaded, or sampled."""


class BundleError(FedcertError):
    """A bundle is incomplete, damaged, or made for something else."""


class CertificateError(FedcertError):
    """A certificate is malformed or does not hold."""


class ProtocolError(FedcertError):
    """A commitment, a seed, or a server's log is forged, replayed, or out of order."""


class RefusalError(FedcertError):
    """Issuing a certificate was refused because it would not mean anything."""


class RunError(FedcertError):
    """A run could not do its job; the command exits non-zero."""


class UnknownKindError(FedcertError):
    """A prior or a recipe is of a kind that nothing in this process has registered."""
