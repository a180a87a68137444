"""The server's log: JSON lines that are only ever appended to, chained, and signed.

Each entry holds the digest of the one before it, so that nothing in the middle can change
or go away. The end can: a copy that was cut short is a valid shorter log. Whoever holds a
countersignature, which names a position and the entry there, can tell.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcert.atomic import fsync_path, naming, write_atomically
from fedcert.canonical import canonical_json, digest_json
from fedcert.certificates.signing import public_hex
from fedcert.certificates.strict_json import Fields, parse_json
from fedcert.errors import CertificateError, ProtocolError
from fedcert.protocol.signed import is_signed_by, signature_of

__all__ = ["FORMAT", "Entry", "ServerLog", "read_log"]

FORMAT = "fedcert.log/1"
"""Name and version of an entry's JSON form."""

_KEYS = ("format", "position", "previous", "kind", "body", "signature")
_NOTHING = "0" * 64


@dataclass(frozen=True)
class Entry:
    """One line of the log.

    Attributes
    ----------
    position : int
        Its number, from 0 on.
    kind : str
        What happened; `fedcert.protocol.history` knows the kinds.
    body : Mapping[str, Any]
        The details.
    digest : str
        Digest of the whole line; the next entry holds it.
    """

    position: int
    kind: str
    body: Mapping[str, Any]
    digest: str


def read_log(path: Path, public_key: str) -> list[Entry]:
    """Read a log and check that it is whole: chain, positions, and all signatures.

    Raises
    ------
    ProtocolError
        If the file cannot be read, or an entry was changed, removed, or moved.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise ProtocolError(f"cannot read the log {path}: {error.strerror}") from error
    if lines.pop():
        raise ProtocolError(f"the log {path} ends in the middle of an entry; get it again")
    return _read_entries(lines, (), public_key, path)


class ServerLog:
    """The log as its one writer sees it; several processes may take turns.

    Parameters
    ----------
    path : Path
        The file. ``PATH.head`` beside it remembers the last entry: a log that was cut
        short, or an old copy put back, is refused.
    key : Ed25519PrivateKey
        The server's.

    Raises
    ------
    ProtocolError
        If the file was changed by anybody else.
    """

    def __init__(self, path: Path, key: Ed25519PrivateKey) -> None:
        self.path, self._key = path, key
        self.public_key = public_hex(key)
        self._head = path.with_name(f"{path.name}.head")
        self._entries: list[Entry] = []
        self._size = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        with self.writing():
            pass

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries, as of the last `writing`."""
        return tuple(self._entries)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other processes out, and catch up with what they have written."""
        import fcntl  # not on Windows, where devices may still read logs

        with self.path.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                self._catch_up(file)
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)

    def append(self, kind: str, body: Mapping[str, Any]) -> Entry:
        """Add an entry; when this returns it is on the disk. Call it within `writing`."""
        members: dict[str, Any] = {
            "format": FORMAT,
            "position": len(self._entries),
            "previous": self._entries[-1].digest if self._entries else _NOTHING,
            "kind": kind,
            "body": dict(body),
        }
        members["signature"] = signature_of(members, self._key)
        line = canonical_json(members) + b"\n"
        with naming(self.path), self.path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        if not self._entries:
            fsync_path(self.path.parent)  # the log's name is as new as its first entry
        entry = Entry(members["position"], kind, members["body"], digest_json(members))
        self._entries.append(entry)
        self._size += len(line)
        self._remember()
        return entry

    def _catch_up(self, file: IO[bytes]) -> None:
        file.seek(0, os.SEEK_END)
        if file.tell() < self._size:
            raise ProtocolError(f"the log {self.path} was cut short while it was in use")
        file.seek(self._size)
        *lines, torn = file.read().split(b"\n")
        if torn:
            # A write that was cut off. Its answer was never sent: that waits for the disk.
            file.truncate(self._size + sum(len(line) + 1 for line in lines))
        new = _read_entries(lines, self._entries, self.public_key, self.path)
        self._entries += new
        self._size += sum(len(line) + 1 for line in lines)
        self._check_head()
        if new:
            self._remember()

    def _remember(self) -> None:
        last = self._entries[-1]
        head = {"position": last.position, "digest": last.digest}
        write_atomically(self._head, json.dumps(head).encode())

    def _check_head(self) -> None:
        if not self._head.exists():
            return
        read = Fields(
            parse_json(self._head.read_bytes(), "log head"), "head", ("position", "digest")
        )
        position, digest = read.integer("position"), read.hexadecimal("digest", 64)
        if position >= len(self._entries) or self._entries[position].digest != digest:
            raise ProtocolError(
                f"the log {self.path} was cut short or replaced: entry {position} is not what "
                f"it was; put the full log back, since attempts that are missing from it "
                "would count anew"
            )


def _read_entries(
    lines: list[bytes], before: list[Entry] | tuple[()], public_key: str, path: Path
) -> list[Entry]:
    entries: list[Entry] = []
    previous = before[-1].digest if before else _NOTHING
    for position, line in enumerate(lines, start=len(before)):
        entry, stated = _read_entry(line, position, public_key, path)
        if stated != previous:
            raise ProtocolError(
                f"the log {path} was edited: entry {position} does not follow the one before"
            )
        entries.append(entry)
        previous = entry.digest
    return entries


def _read_entry(line: bytes, position: int, public_key: str, path: Path) -> tuple[Entry, str]:
    where = f"log entry {position}"
    try:
        members = parse_json(line, where)
        read = Fields(members, where, _KEYS)
        stated = read.integer("position")
        previous, kind = read.hexadecimal("previous", 64), read.text("kind")
        read.hexadecimal("signature", 128)
    except CertificateError as error:
        raise ProtocolError(f"the log {path} was edited: {error}") from error
    body = members["body"]
    if members["format"] != FORMAT or not isinstance(body, dict) or stated != position:
        raise ProtocolError(f"the log {path} was edited: entry {position} is out of place")
    if not is_signed_by(members, public_key):
        raise ProtocolError(
            f"the log {path}: entry {position} was changed, or the server {public_key} did "
            "not sign it"
        )
    return Entry(position, kind, body, digest_json(members)), previous
