"""Archives of a few files: packed to the same bytes each time, and unpacked with suspicion.

An archive is a zip file with plain files at its top level and nothing else. Whoever made it
is not trusted: every member is checked before the first one is read, and what is unpacked
takes its place as a whole or not at all. Names with a slash are refused, so nothing can be
written outside of the folder.
"""

from __future__ import annotations

import hashlib
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from fedcert.atomic import write_atomically
from fedcert.errors import BundleError

__all__ = ["ArchiveLimits", "pack", "read_archive"]

# Letters, digits, and `._-` inside: no path, no drive, no control or invisible character, and
# nothing that Windows would shorten.
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?")
# The earliest date that a zip file can hold; any fixed one would do.
_DATE = (1980, 1, 1, 0, 0, 0)
_FILE_MODE = stat.S_IFREG | 0o644
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED, _ON_UNIX = 0x1, 3
_STEP = 2**20


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive must keep to.

    Parameters
    ----------
    members : int (default: 16)
        Most files.
    size : int (default: 4 GiB)
        Most bytes of all files together, unpacked.
    expansion : int (default: 100)
        Most bytes that one packed byte may become. Arrays of numbers hardly shrink, and
        JSON by a factor of ten; a zip bomb grows by a thousand.
    """

    members: int = 16
    size: int = 4 * 2**30
    expansion: int = 100


def pack(files: Mapping[str, bytes], archive: Path) -> str:
    """Write files as an archive, in full or not at all; return its digest (``sha256sum``).

    The same files give the same bytes on every machine: members are sorted, have a fixed
    date and mode, and are not compressed (other versions of zlib compress otherwise).

    Parameters
    ----------
    files : Mapping[str, bytes]
        Content by name.
    archive : Path
        The file to write.
    """
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as target:
        for name in sorted(files):
            if not _NAME.fullmatch(name):
                raise BundleError(f"{name!r} cannot be the name of a file in an archive")
            member = zipfile.ZipInfo(name, _DATE)
            member.create_system, member.external_attr = _ON_UNIX, _FILE_MODE << 16
            target.writestr(member, files[name])
    content = buffer.getvalue()
    write_atomically(archive, content)
    return hashlib.sha256(content).hexdigest()


def read_archive(archive: Path, limits: ArchiveLimits = ArchiveLimits()) -> dict[str, bytes]:
    """Return the files of an archive, by name.

    Raises
    ------
    BundleError
        If it is no whole archive, or a member is not harmless; the message names it.
    """
    with _opened(archive, limits) as (source, members):
        return {m.filename: b"".join(_content(archive, source, m)) for m in members}


@contextmanager
def _opened(
    archive: Path, limits: ArchiveLimits
) -> Iterator[tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]]:
    """Open an archive and check all that it declares, before anything is read."""
    try:
        with zipfile.ZipFile(archive) as source:
            members = source.infolist()
            if problem := _problem(members, limits):
                raise BundleError(f"{archive}: {problem}; nothing was unpacked")
            yield source, members
    except FileNotFoundError as error:
        raise BundleError(f"{archive}: there is no such archive") from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise BundleError(
            f"{archive}: not a whole zip archive ({error}); a download may have been cut off: "
            "get it again"
        ) from error


def _problem(members: list[zipfile.ZipInfo], limits: ArchiveLimits) -> str | None:
    """Say what is wrong with what an archive declares; None if it is harmless."""
    if len(members) > limits.members:
        return f"it has {len(members)} members, more than {limits.members}"
    seen: set[str] = set()
    total = 0
    for member in members:
        shown = ascii(member.orig_filename)[:100]
        if problem := _member_problem(member, limits):
            return f"its member {shown} {problem}"
        if member.filename.casefold() in seen:
            return f"its member {shown} is there twice, or differs from another in case alone"
        seen.add(member.filename.casefold())
        total += member.file_size
        if total > limits.size:
            return f"with its member {shown} it has {total:,} bytes, more than {limits.size:,}"
    return None


def _member_problem(member: zipfile.ZipInfo, limits: ArchiveLimits) -> str | None:
    # zipfile cuts names at a zero byte: the one in the file counts.
    if not _NAME.fullmatch(member.orig_filename):
        return "is not the plain name of a file"
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "is a link, a device, or a folder; archives hold plain files alone"
    if member.flag_bits & _ENCRYPTED or member.compress_type not in _METHODS:
        return "is encrypted, or packed in a way that this version does not read"
    if member.file_size > limits.expansion * (member.compress_size + _STEP // limits.expansion):
        return (
            f"would grow from {member.compress_size:,} to {member.file_size:,} bytes: more "
            f"than {limits.expansion} times"
        )
    return None


def _content(
    archive: Path, source: zipfile.ZipFile, member: zipfile.ZipInfo
) -> Iterator[bytes]:
    """Yield a member's bytes in parts: as many as it declares, and no more."""
    name, size = member.filename, 0
    try:
        with source.open(member) as file:
            while part := file.read(_STEP):
                size += len(part)
                if size > member.file_size:
                    break
                yield part
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        # OSError: its place in the file is before the beginning, for instance.
        raise BundleError(
            f"{archive}: its member {name!r} is damaged ({error}); get the archive again"
        ) from error
    if size != member.file_size:
        raise BundleError(
            f"{archive}: its member {name!r} is not the {member.file_size:,} bytes that it "
            "declares; get the archive again"
        )
