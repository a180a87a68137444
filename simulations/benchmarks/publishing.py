"""Where a benchmark's record and page go."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedcert.atomic import write_atomically, write_json
from fedcert.simulations.benchmarks.provenance import UNKNOWN, Measured, note, provenance

__all__ = [
    "between_markers",
    "has_page",
    "kept_record",
    "page_of",
    "publish",
    "record_of",
    "results_file",
    "say",
    "write_page",
]

_ROOT = Path(__file__).resolve().parents[2]


def publish(
    name: str,
    record: Mapping[str, Any],
    documents: Mapping[str, str],
    *,
    folder: Path | None = None,
    seconds: float | None = None,
) -> None:
    """Write ``results/NAME.json`` and what is rendered from it, and say where.

    Parameters
    ----------
    name : str
        Name of the benchmark.
    record : Mapping[str, Any]
        What was measured: a JSON object. `provenance` is added to it.
    documents : Mapping[str, str]
        Content by path below ``docs/``.
    folder : Path, optional
        Takes all of it instead, for a part of a benchmark.
    seconds : float, optional
        What all of it took, where the record knows that itself.
    """
    measured = provenance() | ({} if seconds is None else {"seconds": round(seconds)})
    results = results_file(name) if folder is None else folder / f"{name}.json"
    write_json(results, {**record, "measured": measured})
    written = [_shown(results)]
    written += [write_page(path, text, folder=folder) for path, text in documents.items()]
    say(f"wrote {', '.join(map(str, written))}")


def write_page(path: str, text: str, *, folder: Path | None = None) -> Path:
    """Write a page, and return where it is.

    Parameters
    ----------
    path : str
        Below ``docs/``.
    text : str
        The page.
    folder : Path, optional
        Takes it instead of ``docs/``.

    Returns
    -------
    Path
        The file, relative to the repository if it is in there.
    """
    written = ((folder or _ROOT / "docs") / path).resolve()
    write_atomically(written, text.encode())
    return _shown(written)


def say(text: str, *, end: str = "\n") -> None:
    """Write how far a benchmark is, at once."""
    sys.stdout.write(f"{text}{end}")
    sys.stdout.flush()


def record_of(name: str) -> dict[str, Any]:
    """Return a benchmark's last record; empty if there is none."""
    path = results_file(name)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def kept_record(name: str) -> dict[str, Any]:
    """Return a benchmark's last record, of which parts go into the next one as they are.

    The next record then names the commits of this one, too, and adds its time.
    """
    record = record_of(name)
    if record:
        measured = record.pop("measured", {})
        # The time was not kept by commit: the first one stands for all.
        first, *others = measured.get("code", [UNKNOWN])
        note(Measured(first, measured.get("seconds", 0.0)))
        for code in others:
            note(Measured(code, 0.0))
    return record


def has_page(path: str) -> bool:
    """Tell whether there is a page below ``docs/``."""
    return (_ROOT / "docs" / path).is_file()


def page_of(path: str) -> str:
    """Return a page below ``docs/`` as it is."""
    return (_ROOT / "docs" / path).read_text(encoding="utf-8")


def between_markers(text: str, name: str, content: str) -> str:
    """Replace what stands between a page's comments ``NAME: begin`` and ``NAME: end``.

    Parameters
    ----------
    text : str
        The page.
    name : str
        Name in the comments.
    content : str
        What stands between them from then on.

    Returns
    -------
    str
        The new page.

    Raises
    ------
    ValueError
        If the page does not have each of them once, in this order.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"the page needs {begin} and {end} once, in this order")
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n\n{content}\n\n{end}{rest.partition(end)[2]}"


def _shown(path: Path) -> Path:
    return path.relative_to(_ROOT) if path.is_relative_to(_ROOT) else path


def results_file(name: str) -> Path:
    """Return where a benchmark's record is."""
    return _ROOT / "simulations" / "benchmarks" / "results" / f"{name}.json"
