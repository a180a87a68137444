"""The small records that recipes are described with, and checks of their arguments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fedcert.errors import CertificateError

__all__ = [
    "Choice",
    "FirstStage",
    "LedgerEntry",
    "Span",
    "require_integer",
    "require_number",
]


class Span(NamedTuple):
    """Positions ``start <= i < stop`` in the permuted support set."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of examples in the span."""
        return self.stop - self.start

    def as_slice(self) -> slice:
        """Return the span as something to index an array with."""
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class LedgerEntry:
    """One use of delta.

    Parameters
    ----------
    purpose : str
        What it bought, in plain words.
    delta : float
        How much of the recipe's delta it took; 0 for what comes free.
    """

    purpose: str
    delta: float


@dataclass(frozen=True, kw_only=True)
class FirstStage:
    """What the choosing examples said, as far as a weight follows from it.

    Parameters
    ----------
    errors : int
        The chosen candidate's errors on the choosing examples.
    profile : tuple of int
        How many candidates made 0, 1, ..., n1 errors on the n1 choosing examples.
    """

    errors: int
    profile: tuple[int, ...]

    @classmethod
    def of(cls, errors: npt.NDArray[np.integer], chosen_on: int, index: int) -> FirstStage:
        """Return what the candidates' errors say about one of them.

        Parameters
        ----------
        errors : numpy.ndarray
            Of each candidate, integers of shape ``(M,)``.
        chosen_on : int
            n1.
        index : int
            Which candidate.

        Returns
        -------
        FirstStage
            Its errors, and the profile of all.
        """
        profile = np.bincount(errors, minlength=chosen_on + 1)
        return cls(errors=int(errors[index]), profile=tuple(profile.tolist()))


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which hypothesis was chosen, and what else its bound follows from.

    Parameters
    ----------
    index : int
        Its number, from 0 on.
    first_stage : FirstStage or None
        For recipes that weight the candidates by the choosing examples (default: None).
    number : float
        What a randomized bound takes from the seed, in (0, 1]; it is not chosen, and does not
        tell two choices apart (default: 1, which does not randomize).
    """

    index: int
    first_stage: FirstStage | None = None
    number: float = field(default=1.0, compare=False)


def require_integer(name: str, value: object, low: int, high: int) -> None:
    """Raise `CertificateError` unless `value` is an integer from `low` to `high`.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value : object
        Its value; bool is no integer.
    low : int
        Smallest value.
    high : int
        Largest value.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise CertificateError(f"{name} must be an integer, not {value!r}")
    if not low <= value <= high:
        raise CertificateError(f"{name} must be from {low} to {high}, not {value}")


def require_number(name: str, value: object) -> None:
    """Raise `CertificateError` unless `value` is a finite number that JSON keeps."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise CertificateError(f"{name} must be a number, not {value!r}")
    if not abs(value) < 2**53:  # written so that NaN fails
        raise CertificateError(f"{name} must be finite and below 2**53, not {value}")
