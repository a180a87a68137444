"""Reading JSON that somebody signed: nothing unknown, missing, ill-typed, or ambiguous.

A reader that skips what it does not know can be shown one document and report another, so
every deviation is an error that names the field.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection
from typing import Any, NoReturn

from fedcert.canonical import canonical_json
from fedcert.errors import CertificateError

__all__ = ["LARGEST", "Fields", "parse_json"]

LARGEST = 64 * 2**20
"""Bytes of the largest file that is read; a vector of a million numbers takes 11 MB."""

_LARGEST_INTEGER = 2**53 - 1  # the largest that every JSON reader keeps exactly (RFC 8785)


def parse_json(content: bytes | str, document: str) -> Any:
    """Parse JSON text strictly.

    Parameters
    ----------
    content : bytes or str
        UTF-8 if bytes.
    document : str
        What the text is, for messages: "certificate".

    Raises
    ------
    CertificateError
        If the text is not JSON, repeats a key, holds NaN or an infinity, or writes a
        number with other digits than the shortest that mean it.
    """
    try:
        text = content.decode() if isinstance(content, bytes) else content
        return json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_shortest,
        )
    except CertificateError as error:
        raise CertificateError(f"the {document} is malformed: {error}") from error
    except (ValueError, RecursionError) as error:
        raise CertificateError(
            f"the {document} is damaged: it is not JSON ({error}); get a fresh copy"
        ) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise CertificateError(f"the key {key!r} appears twice")
        found[key] = value
    return found


def _no_constant(word: str) -> NoReturn:
    raise CertificateError(f"{word} is not a number that JSON knows")


def _shortest(text: str) -> float:
    # Seventeen digits can name one double in several ways; only one of them was signed.
    value = float(text)
    if not math.isfinite(value):
        raise CertificateError(f"the number {text} is not finite")
    if text not in (repr(value), canonical_json(value).decode()):
        raise CertificateError(f"the number {text} should be written {value!r}")
    return value


class Fields:
    """Typed access to one JSON object whose keys are known.

    Parameters
    ----------
    value : object
        What the parser returned.
    path : str
        Where the object stands, for messages: "certificate", "certificate.digests".
    keys : Collection of str
        The keys that it must have, no more and no fewer.

    Raises
    ------
    CertificateError
        If `value` is not an object with exactly these keys.
    """

    def __init__(self, value: object, path: str, keys: Collection[str]) -> None:
        if not isinstance(value, dict):
            raise CertificateError(f"{path} must be an object, not {_shown(value)}")
        if unknown := sorted(set(value) - set(keys)):
            raise CertificateError(f"{path}.{unknown[0]} is not a known field")
        if missing := sorted(set(keys) - set(value)):
            raise CertificateError(f"{path}.{missing[0]} is missing")
        self._value = value
        self._path = path

    def path(self, key: str) -> str:
        """Return the full name of a field, for messages."""
        return f"{self._path}.{key}"

    def raw(self, key: str) -> Any:
        """Return a value that somebody else checks."""
        return self._value[key]

    def text(self, key: str) -> str:
        """Return a string that is not empty."""
        return _text(self._value[key], self.path(key))

    def optional_text(self, key: str) -> str | None:
        """Return a string that is not empty, or None for null."""
        return None if self._value[key] is None else self.text(key)

    def texts(self, key: str) -> tuple[str, ...]:
        """Return an array of strings, none of them empty."""
        return tuple(
            _text(value, f"{self.path(key)}[{position}]")
            for position, value in enumerate(self.array(key))
        )

    def array(self, key: str) -> list[Any]:
        """Return an array whose elements somebody else checks."""
        value = self._value[key]
        if not isinstance(value, list):
            self._wrong(key, "an array")
        return value

    def integer(self, key: str) -> int:
        """Return an integer from 0 to 2**53 - 1, written without a fraction."""
        return _whole(self._value[key], self.path(key))

    def integers(self, key: str) -> tuple[int, ...]:
        """Return an array of integers, each as for `integer`."""
        return tuple(
            _whole(value, f"{self.path(key)}[{position}]")
            for position, value in enumerate(self.array(key))
        )

    def number(self, key: str) -> float:
        """Return a finite number as a float."""
        value = self._value[key]
        if not isinstance(value, int | float) or isinstance(value, bool):
            self._wrong(key, "a number")
        if not abs(value) <= _LARGEST_INTEGER:  # also true of an infinity and NaN
            self._wrong(key, "a finite number below 2**53")
        return float(value)

    def hexadecimal(self, key: str, digits: int) -> str:
        """Return a string of exactly `digits` lower-case hexadecimal digits."""
        value = self._value[key]
        if not isinstance(value, str) or not re.fullmatch(rf"[0-9a-f]{{{digits}}}", value):
            self._wrong(key, f"{digits} lower-case hexadecimal digits")
        return value

    def _wrong(self, key: str, wanted: str) -> NoReturn:
        raise CertificateError(
            f"{self.path(key)} must be {wanted}, not {_shown(self._value[key])}"
        )


def _whole(value: object, path: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise CertificateError(f"{path} must be an integer, not {_shown(value)}")
    if not 0 <= value <= _LARGEST_INTEGER:
        raise CertificateError(f"{path} must be from 0 to 2**53 - 1, not {_shown(value)}")
    return value


def _text(value: object, path: str) -> str:
    if not isinstance(value, str) or not value:
        raise CertificateError(f"{path} must be text, not {_shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise CertificateError(f"{path} holds half of a surrogate pair") from None
    return value


def _shown(value: object) -> str:
    shown = ascii(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
