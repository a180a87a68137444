"""Reading JSON that somebody signed: nothing unknown, missing, ill-typed, or ambiguous.

A reader that skips what it does not know can be shown one document and report another, so
every deviation is an error that names the field.
"""

from __future__ import annotations

import json
import math
import re
import types
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from typing import (
    Annotated,
    Any,
    Literal,
    NoReturn,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from fedcert.canonical import canonical_json
from fedcert.errors import (
    CertificateError,
    FedcertError,
    ProtocolError,
    UnknownKindError,
    shown,
)

__all__ = ["Digest", "OrAbsent", "RecordError", "SignatureText", "members_of", "parse_json"]

_LARGEST_INTEGER = 2**53 - 1  # the largest that every JSON reader keeps exactly (RFC 8785)
_ABSENT = "left out when there is none"

Digest = Annotated[str, 64]
"""64 lower-case hexadecimal digits: a digest, a public key, or a seed."""

SignatureText = Annotated[str, 128]
"""128 lower-case hexadecimal digits."""

T = TypeVar("T")
OrAbsent = Annotated[T | None, _ABSENT]
"""A member that came later than its format: None where it is absent, and never null."""


_TYPES: dict[Any, dict[str, Any]] = {}


class RecordError(CertificateError, ProtocolError):
    """A file or message cannot be read, or has another form than its format says."""


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
    RecordError
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
    except RecordError as error:
        raise RecordError(f"the {document} is malformed: {error}") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(
            f"the {document} is damaged: it is not JSON ({error}); get a fresh copy"
        ) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise RecordError(f"the key {key!r} appears twice")
        found[key] = value
    return found


def _no_constant(word: str) -> NoReturn:
    raise RecordError(f"{word} is not a number that JSON knows")


def _shortest(text: str) -> float:
    # Seventeen digits can name one double in several ways; only one of them was signed.
    value = float(text)
    if not math.isfinite(value):
        raise RecordError(f"the number {text} is not finite")
    if text not in (repr(value), canonical_json(value).decode()):
        raise RecordError(f"the number {text} should be written {value!r}")
    return value


def types_of(cls: Any) -> dict[str, Any]:
    """Return the types of a dataclass's fields, by name."""
    if cls not in _TYPES:
        hints = get_type_hints(cls, include_extras=True)
        _TYPES[cls] = {field.name: hints[field.name] for field in fields(cls)}
    return _TYPES[cls]


def may_be_absent(kind: Any) -> bool:
    """Return whether a type is `OrAbsent`."""
    return get_origin(kind) is Annotated and kind.__metadata__ == (_ABSENT,)


def members_of(
    value: object, path: str, kinds: Mapping[str, Any], *, beside: Collection[str] = ()
) -> dict[str, Any]:
    """Read the members of a JSON object, each by its type.

    Parameters
    ----------
    value : object
        What the parser returned.
    path : str
        Where the object stands, for messages: "certificate", "certificate.digests".
    kinds : Mapping[str, Any]
        The type of each member. All must be there, but those of type `OrAbsent`.
    beside : Collection of str
        Members that somebody else reads; they must be there, too.

    Returns
    -------
    dict
        The values of what is there.

    Raises
    ------
    RecordError
        If `value` is not an object with these members alone, or one has another type.
    """
    if not isinstance(value, dict):
        raise RecordError(f"{path} must be an object, not {shown(value)}")
    if unknown := sorted(set(value) - set(kinds) - set(beside)):
        raise RecordError(f"{path}.{unknown[0]} is not a known field")
    needed = {name for name, kind in kinds.items() if not may_be_absent(kind)}
    if missing := sorted(needed.union(beside) - set(value)):
        raise RecordError(f"{path}.{missing[0]} is missing")
    return {
        name: _typed(value[name], kind, f"{path}.{name}")
        for name, kind in kinds.items()
        if name in value
    }


def built(cls: type[T], members: Mapping[str, Any], path: str) -> T:
    """Make a dataclass of members that have been read; what it refuses names the place."""
    try:
        return cls(**members)
    except FedcertError as error:
        raise RecordError(f"{path}: {error}") from error


def _typed(value: object, kind: Any, path: str) -> Any:
    """Return a JSON value as a value of a field's type."""
    read = _READERS.get(get_origin(kind) or kind)
    if read is not None:
        return read(value, kind, path)
    if hasattr(kind, "from_config"):
        return _configured(value, kind, path)
    if hasattr(kind, "from_object"):
        return kind.from_object(value, path)
    return built(kind, members_of(value, path, types_of(kind)), path)


def _annotated(value: object, kind: Any, path: str) -> Any:
    (mark,) = kind.__metadata__
    if mark is _ABSENT:
        return _typed(value, get_args(get_args(kind)[0])[0], path)
    if not isinstance(value, str) or not re.fullmatch(rf"[0-9a-f]{{{mark}}}", value):
        _refuse(value, path, f"{mark} lower-case hexadecimal digits")
    return value


def _configured(value: Any, kind: Any, path: str) -> Any:
    try:
        found = kind.from_config(value)
    except UnknownKindError as error:
        raise type(error)(f"{path}: {error}") from error
    except FedcertError as error:
        raise RecordError(f"{path}: {error}") from error
    if found.to_config() != value:
        # What was signed has to be spelled out: a default may differ elsewhere. What came
        # later than the format is spelled out only where it says something new.
        raise RecordError(f"{path} leaves out an argument, or says what goes without saying")
    return found


def _or_null(value: object, kind: Any, path: str) -> Any:
    return None if value is None else _typed(value, get_args(kind)[0], path)


def _array(value: object, kind: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        _refuse(value, path, "an array")
    each = get_args(kind)[0]
    return tuple(_typed(member, each, f"{path}[{i}]") for i, member in enumerate(value))


def _one_of(value: object, kind: Any, path: str) -> object:
    if value not in get_args(kind):
        _refuse(value, path, " or ".join(map(repr, get_args(kind))))
    return value


def _whole(value: object, _kind: Any, path: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        _refuse(value, path, "an integer")
    if not 0 <= value <= _LARGEST_INTEGER:
        _refuse(value, path, "from 0 to 2**53 - 1")
    return value


def _number(value: object, _kind: Any, path: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        _refuse(value, path, "a number")
    if not abs(value) <= _LARGEST_INTEGER:  # also true of an infinity and NaN
        _refuse(value, path, "a finite number below 2**53")
    return float(value)


def _text(value: object, _kind: Any, path: str) -> str:
    if not isinstance(value, str) or not value:
        _refuse(value, path, "text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RecordError(f"{path} holds half of a surrogate pair") from None
    return value


def _bytes(value: object, _kind: Any, path: str) -> bytes:
    if not isinstance(value, str) or not re.fullmatch("([0-9a-f]{2})+", value):
        _refuse(value, path, "bytes in lower-case hexadecimal digits")
    return bytes.fromhex(value)


def _object(value: object, _kind: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _refuse(value, path, "an object")
    return value


_READERS: dict[Any, Callable[[Any, Any, str], Any]] = {
    Annotated: _annotated,
    Union: _or_null,
    types.UnionType: _or_null,
    tuple: _array,
    Literal: _one_of,
    int: _whole,
    float: _number,
    str: _text,
    bytes: _bytes,
    dict: _object,
}


def _refuse(value: object, path: str, wanted: str) -> NoReturn:
    raise RecordError(f"{path} must be {wanted}, not {shown(value)}")
