"""A client's secret: the key of its digests, in a file that only its owner may read."""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from pathlib import Path

from fedcert.atomic import write_once
from fedcert.errors import ProtocolError
from fedcert.records.signing import read_private

__all__ = ["read_or_create_secret"]


def read_or_create_secret(path: Path) -> str:
    """Return the secret at `path`, 64 hexadecimal digits; make one if there is none.

    Raises
    ------
    ProtocolError
        If the file is open to other users, or holds something else.
    """
    if not path.exists():
        with suppress(FileExistsError):  # another process was faster
            write_once(path, secrets.token_hex(32).encode())
    text = read_private(path, "secret").decode(errors="replace").strip()
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ProtocolError(f"the secret {path} is damaged: it must be 64 hexadecimal digits")
    return text
