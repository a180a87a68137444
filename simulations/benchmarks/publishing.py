"""Where a benchmark's record and page go."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedcert.atomic import write_atomically
from fedcert.results import write_json

__all__ = ["publish"]

_ROOT = Path(__file__).resolve().parents[2]


def publish(name: str, record: Mapping[str, Any], documents: Mapping[str, str]) -> None:
    """Write ``results/NAME.json`` and what is rendered from it, and say where.

    Parameters
    ----------
    name : str
        Of the benchmark.
    record : Mapping[str, Any]
        What was measured: a JSON object.
    documents : Mapping[str, str]
        Content by path below ``docs/``.
    """
    results = _ROOT / "simulations" / "benchmarks" / "results" / f"{name}.json"
    write_json(results, dict(record))
    written = [results]
    for path, text in documents.items():
        written.append(_ROOT / "docs" / path)
        write_atomically(written[-1], text.encode())
    sys.stdout.write(f"wrote {', '.join(str(p.relative_to(_ROOT)) for p in written)}\n")
