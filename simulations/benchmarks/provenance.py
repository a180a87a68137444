"""By which code a benchmark's figures were measured, and how long that took.

A benchmark that goes on where it stopped may take figures of an older commit from the cache.
So each of them is kept with its commit, and a record names all commits that it has figures of.
"""

from __future__ import annotations

import ast
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import psutil

__all__ = [
    "UNKNOWN",
    "Measured",
    "landed_with",
    "note",
    "present_code",
    "provenance",
    "sources_of",
    "unchanged_since",
]

_ROOT = Path(__file__).resolve().parents[2]
_SOURCES = (
    "fedcert",
    "strategies",
    "clients",
    "simulations",
    ":!simulations/benchmarks/results",
)
_HERE = "fedcert.simulations.benchmarks"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Measured:
    """Where a figure comes from.

    Attributes
    ----------
    code : str
        The commit, as `present_code` says it.
    seconds : float
        How long it took.
    """

    code: str
    seconds: float

    def to_config(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


_kept: list[Measured] = []


def note(measured: Measured) -> None:
    """Remember that figures of this process come from the cache."""
    _kept.append(measured)


def provenance() -> dict[str, Any]:
    """Return what a record says of its figures: date, commits, and seconds from scratch.

    The seconds are those of this process, and of what it took from the cache.
    """
    here = time.time() - psutil.Process().create_time()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "code": sorted({present_code()} | {measured.code for measured in _kept}),
        "seconds": round(here + sum(measured.seconds for measured in _kept)),
    }


@cache
def present_code() -> str:
    """Return the commit of these sources, with a plus if files differ from it.

    Without Git it is "unknown".
    """
    commit = _git("rev-parse", "--short=12", "HEAD")
    if commit is None:
        return UNKNOWN
    return f"{commit}+" if _git("status", "--porcelain", "--", *_SOURCES) else commit


def unchanged_since(code: str, sources: Sequence[str]) -> bool:
    """Tell whether sources are those of a commit that `present_code` named."""
    if code == UNKNOWN or code.endswith("+"):
        return False
    return _git("diff", "--name-only", code, "--", *sources) == ""


def sources_of(module: str) -> list[str]:
    """Return what Git is asked about one benchmark: all that its figures may rest on.

    That is everything but the other benchmarks, and the modules that only render.

    Parameters
    ----------
    module : str
        Name of the benchmark's module in this package.
    """
    folder = Path(__file__).resolve().parent
    reached, left = set(), [module]
    while left:
        name = left.pop()
        path = folder.joinpath(*name.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if file in reached or not file.is_file():
            continue
        reached.add(file)
        left += [name.rpartition(".")[0], *_imported(file)]
    rendering = {file for file in folder.glob("*_page.py") if file.stem != module}
    others = set(folder.rglob("*.py")) - (reached - rendering)
    return [*_SOURCES, *sorted(f":!{file.relative_to(_ROOT)}" for file in others)]


def _imported(file: Path) -> Iterator[str]:
    """Yield the modules of this package that a file imports, and names that may be some."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{_HERE}."):
            assert node.module is not None
            inside = node.module[len(_HERE) + 1 :]
            yield inside
            yield from (f"{inside}.{one.name}".lstrip(".") for one in node.names)


def landed_with(file: Path) -> tuple[str, str] | None:
    """Return commit and date of the last change of a file; None if Git knows of none."""
    words = (_git("log", "-1", "--format=%h %as", "--abbrev=12", "--", str(file)) or "").split()
    return (words[0], words[1]) if words else None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed words
            ["git", *arguments],  # noqa: S607 - whichever Git is on the path
            cwd=_ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
