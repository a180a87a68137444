"""Errors that fedcert raises for a user's or a peer's mistake.

Every message names what is wrong, where, and what to do about it. The command line
prints the message alone; library users catch `FedcertError` or one of its children.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "AdapterError",
    "BundleError",
    "CertificateError",
    "DataError",
    "FedcertError",
    "MethodRefusedError",
    "ModelError",
    "PoolError",
    "PriorError",
    "ProtocolError",
    "RefusalError",
    "RowError",
    "RunError",
    "SettingsError",
    "UnknownKindError",
    "did_you_mean",
    "shown",
]

_LONGEST = 60


class FedcertError(Exception):
    """Base of every error that fedcert raises on purpose."""


class SettingsError(FedcertError):
    """A setting is missing, unknown, or out of its range."""


class MethodRefusedError(SettingsError):
    """A method cannot be used with a base model."""


class DataError(FedcertError):
    """Labeled examples are missing, malformed, or do not fit the task."""


class RowError(DataError):
    """One of several examples does not fit.

    Whoever knows the file says there which line it is (`fedcert.data.tables.Columns.located`).

    Parameters
    ----------
    row : int
        Its place among the examples, from 0.
    reason : str
        What is wrong, as a predicate: "is an empty text".
    noun : str (default: "example")
        What it is called where no file is known.
    """

    def __init__(self, row: int, reason: str, *, noun: str = "example") -> None:
        super().__init__(f"{noun} {row + 1} {reason}")
        self.row, self.reason = row, reason


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
    """A prior, a recipe, or a method of a kind that nothing in this process has registered."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the known word that is most alike, or nothing."""
    by_key = {word.strip().casefold(): word for word in known}
    close = get_close_matches(given.strip().casefold(), list(by_key), n=1)
    return f"; did you mean {by_key[close[0]]!r}?" if close else ""


def shown(value: object) -> str:
    """Return a value as a message shows it: in ASCII, and cut off after 60 characters."""
    text = ascii(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
