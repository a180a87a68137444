"""A lock on a folder that dies with its holder, so that two runs never share it."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from fedcert.errors import RunError

__all__ = ["only_one", "only_one_at_a_time"]

_LONGEST_WORDS = 300
_LONGEST_TURN, _BETWEEN_TRIES = 30.0, 0.02  # seconds


@contextmanager
def only_one(path: Path, *, what: str) -> Iterator[None]:
    """Keep every other process, and every other run of this one, out while the block runs.

    The operating system holds the lock (flock) and lets go of it when the process ends, in
    whatever way. The file stays; what it says is for people, and only `flock` counts.

    Parameters
    ----------
    path : Path
        The lock's file; made if it is missing.
    what : str
        What is locked, for the error's words.

    Raises
    ------
    RunError
        If it is locked already, or its file system has no locks.
    """
    import fcntl  # not on Windows, where no server runs

    path.parent.mkdir(parents=True, exist_ok=True)
    # Opened without truncation: the words in it are the holder's.
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise RunError(
                    f"{path}: the file system cannot lock files ({error.strerror}), so two "
                    "runs could not be kept apart; use a folder on another one"
                ) from error
            holder = os.read(handle, _LONGEST_WORDS).decode(errors="replace").strip()
            raise RunError(
                f"{what} is in use by another run ({holder or 'just started'}); wait until it "
                "has ended, or use another folder"
            ) from error
        with suppress(OSError):  # a full disk: the lock holds without its words
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        os.close(handle)


@contextmanager
def only_one_at_a_time(path: Path, *, what: str) -> Iterator[None]:
    """Wait for `only_one`: the others are done in a moment.

    Parameters
    ----------
    path, what
        As in `only_one`.

    Raises
    ------
    RunError
        If they are not.
    """
    if os.name == "nt":  # nobody to keep out: one node, one process at a time
        yield
        return
    deadline = time.monotonic() + _LONGEST_TURN
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(only_one(path, what=what))
                break
            except RunError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_BETWEEN_TRIES)
        yield
