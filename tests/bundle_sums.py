"""Making a bundle's folder whole again after a test has changed a file of it."""

from __future__ import annotations

import hashlib
from pathlib import Path


def write_sums(folder: Path) -> None:
    """List the files as they are now, as whoever forges a bundle would."""
    lines = [
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("bundle.json", "bundle.safetensors")
    ]
    (folder / "bundle.sha256").write_text("".join(lines))
