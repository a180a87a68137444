"""A client's secret: the key of its digests, in a file that only its owner may read."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import stat
from pathlib import Path

from fedcert.atomic import fsync_path
from fedcert.errors import ProtocolError

__all__ = ["read_or_create_secret"]


def read_or_create_secret(path: Path) -> str:
    """Return the secret at `path`, 64 hexadecimal digits; make one if there is none.

    Raises
    ------
    ProtocolError
        If the file is open to other users, or holds something else.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written aside and linked: of two processes that start together one makes it.
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
        fsync_path(path.parent)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ProtocolError(
            f"the secret {path} is open to other users (mode {mode:03o}); "
            f"run: chmod 600 {shlex.quote(str(path))}"
        )
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ProtocolError(f"the secret {path} is damaged: it must be 64 hexadecimal digits")
    return text
