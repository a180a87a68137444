"""Writing files and folders so that a reader never meets a half-written one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

__all__ = [
    "fsync_path",
    "naming",
    "replaced_folder",
    "write_atomically",
    "write_json",
    "write_once",
]

_T = TypeVar("_T")
_NO_FSYNC = {errno.EINVAL, errno.ENOTSUP}


def write_atomically(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a file in full or not at all.

    The content goes to a temporary file beside `path`, reaches the disk, and then takes
    the name in one step; the name reaches the disk as well. On any error (a full disk, say)
    the old file stays.

    Parameters
    ----------
    path : Path
        The file.
    content : bytes
        All of it.
    mode : int (default: 0o644)
        Permissions of the file.

    Raises
    ------
    OSError
        It names the file.
    """
    with _written_beside(path, content) as made:
        made.chmod(mode)
        made.replace(path)


def write_once(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, in full or not at all, and never over another.

    Raises
    ------
    FileExistsError
        If there is something at `path` already.
    """
    with _written_beside(path, content) as made:
        # A hard link, unlike a rename, fails when the name is taken, so that of two processes
        # that start together only one makes the file.
        os.link(made, path)


@contextmanager
def _written_beside(path: Path, content: bytes) -> Iterator[Path]:
    """Yield a file beside another, with mode 600, whose content is on the disk.

    The block gives it its name, which reaches the disk afterwards; a name of its own is left
    to nobody.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = _temporary(tempfile.mkstemp, path)
    try:
        with naming(path), os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield Path(name)
        fsync_path(path.parent)
    finally:
        Path(name).unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file with an indent, in full or not at all; NaN is an error."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, f"{text}\n".encode())


def fsync_path(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk.

    A name that was given by a rename lives in its folder: without this it can vanish in a
    power cut although the file's content is on the disk. Windows has no such call.
    """
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems know no such call for folders, and nothing is to be done.
        if not path.is_dir() or error.errno not in _NO_FSYNC:
            raise
    finally:
        os.close(handle)


def _temporary(make: Callable[..., _T], path: Path) -> _T:
    """Make a temporary file or folder beside a path, which an error then names."""
    try:
        return make(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        # Nobody has asked for, nor can look at, a file of the temporary name.
        error.filename = str(path)
        raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an `OSError` of the block name a file: Python's own, in writing, names none."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` only if the block succeeds.

    A folder that stood at `path` is replaced on success and untouched on failure.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(_temporary(tempfile.mkdtemp, path))
    try:
        yield staging
        staging.chmod(0o755)
        for inside in (staging, *staging.rglob("*")):
            if not inside.is_symlink():
                fsync_path(inside)
        if path.exists():
            retired = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
            path.replace(retired / path.name)
            try:
                staging.replace(path)
            except BaseException:
                (retired / path.name).replace(path)
                retired.rmdir()
                raise
            fsync_path(path.parent)
            shutil.rmtree(retired)
        else:
            staging.replace(path)
            fsync_path(path.parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
