"""The library knows nothing of Flower and Ray: only strategies, clients, simulations do."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import fedcert

ROOT = Path(fedcert.__file__).parent
FOLDERS = {
    "fedcert": "fedcert",
    "strategies": "fedcert.strategies",
    "clients": "fedcert.clients",
    "simulations": "fedcert.simulations",
}
# What server and clients say to each other, in Flower's records too.
OUTSIDE = ("strategies", "clients", "simulations", "cli", "messages")


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
            if node.module == "fedcert":
                found |= {f"fedcert.{alias.name}" for alias in node.names}
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


def _importing(forbidden: set[str], *, parts: int) -> dict[str, set[str]]:
    """Return what modules of the library import that they should not.

    Parameters
    ----------
    forbidden : set of str
        Names, of so many parts.
    parts : int
        How much of an imported name counts.
    """
    found = {}
    for module in _modules():
        path = ROOT.parent.joinpath(*module.split("."))
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        names = {".".join(name.split(".")[:parts]) for name in _imported(source)}
        if names & forbidden:
            found[module] = names & forbidden
    return found


def test_no_source_file_imports_flower_or_ray() -> None:
    assert _importing({"flwr", "ray"}, parts=1) == {}
    assert "fedcert.priors.diffusion" in _importing({"torch"}, parts=1)  # it does find imports


def test_the_library_does_not_import_what_is_built_on_it() -> None:
    """Scenarios are found by name at run time; nothing else points outward."""
    assert _importing({f"fedcert.{name}" for name in OUTSIDE}, parts=2) == {}


# Packages


def _package(module: str) -> str:
    """Return the package below `fedcert` that a module lies in, or the module itself."""
    return ".".join(module.split(".")[:2])


def _packages_imported() -> dict[str, set[str]]:
    """Return which packages and top modules each of them imports, lazily or not."""
    found: dict[str, set[str]] = {}
    for folder, name in FOLDERS.items():
        for path in (ROOT.parent / folder).rglob("*.py"):
            inside = path.relative_to(ROOT.parent / folder).with_suffix("").parts
            own = _package(".".join([name, *inside]).removesuffix(".__init__"))
            if own == "fedcert":
                continue
            names = {_package(n) for n in _imported(path) if n.startswith("fedcert.")}
            found.setdefault(own, set()).update(names - {own})
    return found


def _in_circles(imported: dict[str, set[str]]) -> dict[str, list[str]]:
    """Return who imports itself by way of others, with what of that it imports."""
    left = dict(imported)
    while ground := [name for name, above in left.items() if not above & left.keys()]:
        for name in ground:
            del left[name]
    return {name: sorted(above & left.keys()) for name, above in left.items()}


def test_no_package_imports_itself_by_way_of_others() -> None:
    imported = _packages_imported()
    assert "fedcert.protocol" in imported["fedcert.verification"]  # it does find imports
    assert _in_circles(imported) == {}
    assert _in_circles({"a": {"b"}, "b": {"a"}, "c": {"a"}, "d": set()}).keys() == set("abc")


def _modules_imported() -> dict[str, set[str]]:
    """Return which modules each of them imports, at the top or within a function.

    What a package exports is its modules' affair, and what types alone need is no import.
    """
    paths = {}
    for folder, name in FOLDERS.items():
        for path in (ROOT.parent / folder).rglob("*.py"):
            inside = path.relative_to(ROOT.parent / folder).with_suffix("").parts
            paths[".".join([name, *inside])] = path
    found: dict[str, set[str]] = {}
    for module, path in paths.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for block in ast.walk(tree):
            if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
                block.body = []
        froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        names = {str(node.module) for node in froms}
        names |= {f"{node.module}.{alias.name}" for node in froms for alias in node.names}
        found[module] = names & paths.keys() - {module}
    return found


def test_no_module_imports_itself_by_way_of_others() -> None:
    imported = _modules_imported()
    assert "fedcert.strategies.run" in imported["fedcert.strategies.pooled_prior"]
    assert _in_circles(imported) == {}


def test_the_architecture_draws_every_package_above_what_it_imports() -> None:
    text = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawing = next(part for part in text.split("```") if part.startswith("\ncli\n"))
    rows = [line.split() for line in drawing.strip().splitlines()]
    row = {f"fedcert.{name}": place for place, names in enumerate(rows) for name in names}
    imported = _packages_imported()
    assert row.keys() == imported.keys()
    assert {
        (name, other)
        for name, others in imported.items()
        for other in others & imported.keys()
        if row[name] >= row[other]
    } == set()


def test_every_source_of_a_prior_stands_in_the_drawing_of_the_server() -> None:
    folder = ROOT.parent / "strategies"
    sources = {
        node.name
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        and any(isinstance(base, ast.Name) and base.id == "PriorSource" for base in node.bases)
    }
    page = (ROOT.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert sources
    assert not {name for name in sources if f"`{name}`" not in page}
