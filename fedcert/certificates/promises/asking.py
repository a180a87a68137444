"""How promises are asked for: in a saved form, or in the words of a setting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedcert.certificates.promises.base import PROMISES, Promise
from fedcert.errors import CertificateError

__all__ = ["promises_asked", "promises_from"]


def promises_from(config: object) -> tuple[Promise[Any], ...]:
    """Make promises of any registered kind from their JSON array.

    Raises
    ------
    CertificateError
        If a kind is unknown or named twice, a key is unknown or missing, or a value is wrong.
    """
    if not isinstance(config, list | tuple):
        raise CertificateError(f"promises must be an array, not {config!r}")
    made = tuple(_promise_from(entry) for entry in config)
    kinds = [promise.kind for promise in made]
    if len(set(kinds)) < len(kinds):
        raise CertificateError(f"a recipe makes each promise once, not {', '.join(kinds)}")
    return made


def _promise_from(config: object) -> Promise[Any]:
    if isinstance(config, Promise):
        return config
    if not isinstance(config, Mapping):
        raise CertificateError(f"a promise must be an object, not {config!r}")
    return PROMISES.made(config, CertificateError)


def promises_asked(text: str, *, share: float) -> tuple[Promise[Any], ...]:
    """Make promises as a setting names them.

    Parameters
    ----------
    text : str
        Kinds, separated by commas; an argument follows "=".
    share : float
        The share of each.

    Raises
    ------
    CertificateError
        If a kind is unknown or named twice, or an argument is wrong.

    Examples
    --------
    >>> [promise.kind for promise in promises_asked("abstention=0.1, gain", share=0.5)]
    ['abstention', 'gain']
    """
    made = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        kind, equals, argument = (word.strip() for word in part.partition("="))
        try:
            made.append(PROMISES.named(kind).asked(argument if equals else None, share=share))
        except ValueError:
            raise CertificateError(f"{argument!r} is no number, in {part!r}") from None
    return promises_from(made)
