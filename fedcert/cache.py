"""Where fedcert keeps what it made once and can use again."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """Return the cache: ``$FEDCERT_CACHE`` or ``~/.cache/fedcert``."""
    return Path(os.environ.get("FEDCERT_CACHE") or Path.home() / ".cache" / "fedcert")
