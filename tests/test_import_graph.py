"""The library knows nothing of Flower and Ray: only strategies, clients, simulations do."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fedcert

ROOT = Path(fedcert.__file__).parent
# flower_records turns arrays into Flower's records, for strategies and clients.
OUTSIDE = ("strategies", "clients", "simulations", "cli", "flower_records")

FORBIDDEN = {"flwr", "ray"}


def _modules() -> list[str]:
    paths = sorted(path.relative_to(ROOT.parent) for path in ROOT.rglob("*.py"))
    names = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return [name for name in names if name.partition(".")[2].split(".")[0] not in OUTSIDE]


def _imported(source: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(str(node.module))
    return found


def test_importing_the_library_does_not_import_flower_or_ray() -> None:
    modules = _modules()
    assert {"fedcert", "fedcert.priors.diffusion", "fedcert.pool.store"} <= set(modules)
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    found = {'flwr', 'ray'} & set(sys.modules)\n"
        "    assert not found, f'{name} imports {found}'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *modules], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", _modules())
def test_no_source_file_imports_flower_or_ray(module: str) -> None:
    path = ROOT.parent.joinpath(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tops = {name.split(".")[0] for name in _imported(source)}
    assert not tops & FORBIDDEN


@pytest.mark.parametrize("module", _modules())
def test_the_library_does_not_import_what_is_built_on_it(module: str) -> None:
    """Scenarios are found by name at run time; nothing else points outward."""
    path = ROOT.parent.joinpath(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    outward = {f"fedcert.{name}" for name in OUTSIDE}
    inward = {".".join(name.split(".")[:2]) for name in _imported(source)}
    assert not inward & outward
