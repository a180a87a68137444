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
from fedcert.canonical import canonical_json
from fedcert.errors import ProtocolError
from fedcert.records import Digest, Record, RecordError, SignatureText, Signed, parse_json
from fedcert.records.signing import public_hex

__all__ = ["FORMAT", "Entry", "ServerLog", "read_log"]

FORMAT = "fedcert.log/1"
"""Name and version of an entry's JSON form."""

_NOTHING = "0" * 64


@dataclass(frozen=True, kw_only=True)
class Entry(Signed):
    """One line of the log.

    Parameters
    ----------
    position : int
        Its number, from 0 on.
    previous : str
        Digest of the whole line before, zeros before the first.
    kind : str
        What happened; `fedcert.protocol.history` knows the kinds.
    body : dict
        The details.
    signature : str
        The server's, over all the rest.
    """

    what = "log entry"
    format = FORMAT

    position: int
    previous: Digest
    kind: str
    body: dict[str, Any]
    signature: SignatureText


@dataclass(frozen=True)
class _Head(Record):
    """Which entry is the last."""

    what = "log head"

    position: int
    digest: Digest


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
        entry = Entry(
            position=len(self._entries),
            previous=self._entries[-1].digest if self._entries else _NOTHING,
            kind=kind,
            body=dict(body),
            signature="",
        ).signed(self._key)
        line = canonical_json(entry.to_object()) + b"\n"
        with naming(self.path), self.path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        if not self._entries:
            fsync_path(self.path.parent)  # the log's name is as new as its first entry
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
        head = _Head(last.position, last.digest).to_object()
        write_atomically(self._head, json.dumps(head).encode())

    def _check_head(self) -> None:
        if not self._head.exists():
            return
        last = _Head.read(self._head)
        missing = last.position >= len(self._entries)
        if missing or self._entries[last.position].digest != last.digest:
            raise ProtocolError(
                f"the log {self.path} was cut short or replaced: entry {last.position} is not "
                f"what it was; put the full log back, since attempts that are missing from it "
                "would count anew"
            )


def _read_entries(
    lines: list[bytes], before: list[Entry] | tuple[()], public_key: str, path: Path
) -> list[Entry]:
    entries: list[Entry] = []
    previous = before[-1].digest if before else _NOTHING
    for position, line in enumerate(lines, start=len(before)):
        where = f"log entry {position}"
        try:
            entry = Entry.from_object(parse_json(line, where), where)
        except RecordError as error:
            raise ProtocolError(f"the log {path} was edited: {error}") from error
        if entry.position != position:
            raise ProtocolError(f"the log {path} was edited: entry {position} is out of place")
        if not entry.is_signed_by(public_key):
            raise ProtocolError(
                f"the log {path}: entry {position} was changed, or the server {public_key} did "
                "not sign it"
            )
        if entry.previous != previous:
            raise ProtocolError(
                f"the log {path} was edited: entry {position} does not follow the one before"
            )
        entries.append(entry)
        previous = entry.digest
    return entries
