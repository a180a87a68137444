"""Where fedcert keeps what it made once, and what must not be lost."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder", "state_folder"]


def cache_folder() -> Path:
    """Return the cache: ``$FEDCERT_CACHE`` or ``~/.cache/fedcert``."""
    return Path(os.environ.get("FEDCERT_CACHE") or Path.home() / ".cache" / "fedcert")


def state_folder() -> Path:
    """Return where a user's own key and ledger are, whatever the working directory.

    ``$FEDCERT_STATE``, or ``fedcert`` in ``$XDG_STATE_HOME`` or ``~/.local/state``.
    """
    if own := os.environ.get("FEDCERT_STATE"):
        return Path(own)
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "fedcert"
