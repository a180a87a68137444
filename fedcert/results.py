"""Writing result files: JSON that people can read, in full or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fedcert.atomic import write_atomically

__all__ = ["write_json"]


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file with an indent; NaN and infinities are errors."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, f"{text}\n".encode())
