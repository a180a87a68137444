"""Records: JSON objects with a format, written and read one way, and signed one way."""

from __future__ import annotations

import json
from dataclasses import dataclass, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcert.atomic import write_atomically
from fedcert.canonical import canonical_json, digest_json
from fedcert.records.signing import sign, verify
from fedcert.records.strict import (
    RecordError,
    built,
    may_be_absent,
    members_of,
    parse_json,
    types_of,
)

__all__ = ["LARGEST", "Record", "Signed"]

LARGEST = 64 * 2**20
"""Bytes of the largest file that is read; a vector of a million numbers takes 11 MB."""


@dataclass(frozen=True)
class Record:
    """A frozen dataclass whose fields are the members of a JSON object.

    The types of the fields say what is read: `Digest`, `SignatureText`, `OrAbsent`, texts that
    are not empty, integers from 0 to 2**53 - 1, finite floats, tuples, dictionaries, other
    records, and what has ``from_config`` and ``to_config``.
    """

    what: ClassVar[str]
    """What messages call it."""
    format: ClassVar[str | None] = None
    """Name and version of the JSON form; None if it is only a part of others."""
    mode: ClassVar[int] = 0o644
    """Permissions of the files that hold one."""

    def to_object(self) -> dict[str, Any]:
        """Return the JSON object."""
        members = {} if self.format is None else {"format": self.format}
        return members | _members(self)

    @classmethod
    def from_object(cls, value: object, path: str | None = None) -> Self:
        """Read the JSON object strictly; this checks its form, not what it says.

        Parameters
        ----------
        value : object
            The JSON value.
        path : str, optional
            Where it stands, for messages.

        Returns
        -------
        Record
            A record that `to_object` writes in the same way.

        Raises
        ------
        RecordError
            If a member is unknown, missing, or ill-typed; the message names it.
        """
        path = path or cls.what
        # Before anything else, so that a later format is named as such.
        beside = () if cls.format is None else ("format",)
        for key in beside:
            if isinstance(value, dict) and value.get(key, cls.format) != cls.format:
                raise RecordError(
                    f"{path}.format is {value[key]!r}; this version reads {cls.format!r}"
                )
        record = built(cls, members_of(value, path, types_of(cls), beside=beside), path)
        record.validate(path)
        return record

    def validate(self, path: str) -> None:
        """Raise an error if the members contradict each other, or the signature is wrong.

        Parameters
        ----------
        path : str
            Where the record stands, for messages.
        """

    def to_json(self) -> str:
        """Return JSON for people to read: sorted keys, an indent of two.

        Signatures cover the canonical form, so the layout of this text is free.
        """
        text = json.dumps(
            self.to_object(), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False
        )
        return f"{text}\n"

    @classmethod
    def from_json(cls, content: bytes | str) -> Self:
        """Read JSON text strictly; see `from_object` and `parse_json`."""
        return cls.from_object(parse_json(content, cls.what))

    def write(self, path: Path) -> None:
        """Write `to_json` to a file, in full or not at all."""
        write_atomically(path, self.to_json().encode(), mode=self.mode)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file; see `from_object`.

        Raises
        ------
        RecordError
            Also if there is no such file, it cannot be read, is larger than any record, or
            holds something else.
        """
        if path.is_dir():
            raise RecordError(f"{path} is a folder: name the file of the {cls.what} in it")
        try:
            with path.open("rb") as file:
                content = file.read(LARGEST + 1)
        except OSError as error:
            raise RecordError(f"cannot read the {cls.what} {path}: {error.strerror}") from error
        if len(content) > LARGEST:
            raise RecordError(f"the {cls.what} {path} has more than {LARGEST:,} bytes")
        found = parse_json(content, f"{cls.what} {path}")
        said = found.get("format") if isinstance(found, dict) else None
        kind = str(cls.format).partition("/")[0]
        # These files look alike: say which one this is before its members are judged.
        if isinstance(said, str) and said.partition("/")[0] != kind:
            raise RecordError(f"{path} is no {cls.what}: it says that its format is {said!r}")
        try:
            return cls.from_object(found)
        except RecordError as error:
            raise RecordError(f"{path}: {error}; get a fresh copy") from error


@dataclass(frozen=True)
class Signed(Record):
    """A record under an Ed25519 signature of all the rest, its format included."""

    signature_at: ClassVar[tuple[str, ...]] = ("signature",)
    """Where the signature stands, from the outermost member on."""

    @cached_property
    def digest(self) -> str:
        """Identity of the record, its signature included."""
        return digest_json(self.to_object())

    def payload(self) -> bytes:
        """Return the signed bytes: canonical JSON without the signature."""
        members = self.to_object()
        *outer, last = self.signature_at
        holder = members
        for name in outer:
            holder = holder[name]
        del holder[last]
        return canonical_json(members)

    def signed(self, key: Ed25519PrivateKey) -> Self:
        """Return the record with a key's signature in the place of the one that it has."""
        changed: Any = sign(key, self.payload())
        *outer, last = self.signature_at
        for name in outer:
            changed = replace(getattr(self, name), **{last: changed})
            last = name
        return replace(self, **{last: changed})

    def is_signed_by(self, public_key: str) -> bool:
        """Return whether the signature is this key's."""
        value: Any = self
        for name in self.signature_at:
            value = getattr(value, name)
        return verify(public_key, self.payload(), value)


def _members(record: Any) -> dict[str, Any]:
    return {
        name: _plain(value)
        for name, kind in types_of(type(record)).items()
        if (value := getattr(record, name)) is not None or not may_be_absent(kind)
    }


def _plain(value: Any) -> Any:
    """Return a field's value as JSON has it."""
    if isinstance(value, Record):
        return value.to_object()
    if hasattr(value, "to_config"):
        return value.to_config()
    if is_dataclass(value):
        return _members(value)
    if isinstance(value, tuple):
        return [_plain(member) for member in value]
    return value.hex() if isinstance(value, bytes) else value
