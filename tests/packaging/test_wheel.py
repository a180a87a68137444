"""The wheel: it holds the four folders under one name, and works without the tree.

An editable install, which all other tests run on, finds every file of the tree. What
pyproject.toml forgets is missed only by users, so this builds what they install.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "fedcert": "fedcert",
    "strategies": "fedcert/strategies",
    "clients": "fedcert/clients",
    "simulations": "fedcert/simulations",
}
"""Where each folder of the tree lies in the wheel."""

# Benchmarks run from a checkout.
LEFT_OUT = ("simulations/benchmarks/",)
PATTERNS = ("*.py", "py.typed", "*.jinja")


def run(*command: str | Path, cwd: Path, path: str = "") -> str:
    """Run a command and return what it printed; fail with all that it said."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    if path:
        environment["PYTHONPATH"] = path
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pip(*words: str | Path, cwd: Path) -> None:
    quiet = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-index")
    command, *rest = words
    run(sys.executable, "-m", "pip", command, *quiet, *rest, cwd=cwd)


def packed(wheel: Path) -> set[str]:
    """List what a wheel holds, its metadata aside."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # A copy, because setuptools leaves build/ and *.egg-info behind and packs what it finds
    # there from an earlier build.
    work = tmp_path_factory.mktemp("wheel")
    source = work / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for folder in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    pip("wheel", "--no-build-isolation", "--wheel-dir", work, source, cwd=work)
    (built,) = work.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def target(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    pip("install", "--target", target, wheel, cwd=target)
    return target


@pytest.fixture
def installed_path(target: Path) -> str:
    """Return an import path of the installed wheel and what it depends on.

    With `python -S` no .pth file is read, so the editable install of the tree stays out;
    otherwise it would fill in what the wheel lacks.
    """
    paths = sysconfig.get_paths()
    return os.pathsep.join(map(str, [target, paths["purelib"], paths["platlib"]]))


def test_the_wheel_holds_the_tree_and_nothing_else(wheel: Path) -> None:
    expected = {
        f"{place}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, place in FOLDERS.items()
        for pattern in PATTERNS
        for path in (ROOT / folder).rglob(pattern)
        if not path.relative_to(ROOT).as_posix().startswith(LEFT_OUT)
    }
    app = ROOT / "simulations" / "app"
    expected |= {  # a project of its own, carried whole
        f"fedcert/simulations/{path.relative_to(ROOT / 'simulations').as_posix()}"
        for path in app.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed(wheel) == expected
    assert {"fedcert/py.typed", "fedcert/reports/report.html.jinja"} <= expected


def test_the_test_knows_every_folder() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        mapping = tomllib.load(file)["tool"]["setuptools"]["package-dir"]
    places = {folder: name.replace(".", "/") for name, folder in mapping.items()}
    assert places == FOLDERS


def test_the_wheel_carries_its_license_and_readme(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        texts = {name.partition(".dist-info/")[2]: name for name in archive.namelist()}
        metadata = archive.read(texts["METADATA"]).decode()
        license_text = archive.read(texts["licenses/LICENSE"]).decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert (ROOT / "README.md").read_text(encoding="utf-8").strip() in metadata
    assert license_text == (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_every_module_imports_without_the_tree(
    wheel: Path, target: Path, installed_path: str, tmp_path: Path
) -> None:
    names = [
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in sorted(packed(wheel))
        if name.endswith(".py") and not name.endswith("/__main__.py") and "/app/" not in name
    ]
    program = "\n".join(
        [
            "import importlib, sys",
            "for name in sys.argv[1:]: print(importlib.import_module(name).__file__)",
        ]
    )
    printed = run(
        sys.executable, "-S", "-c", program, *names, cwd=tmp_path, path=installed_path
    )
    files = [Path(line) for line in printed.splitlines()]
    assert len(files) == len(names)
    assert [file for file in files if not file.is_relative_to(target)] == []


def test_the_console_command_runs_without_the_tree(
    target: Path, installed_path: str, tmp_path: Path
) -> None:
    script = target / "bin" / "fedcert"
    printed = run(sys.executable, "-S", script, "--help", cwd=tmp_path, path=installed_path)
    assert "simulate" in printed


def test_the_wheel_makes_an_app_without_the_tree(
    target: Path, installed_path: str, tmp_path: Path
) -> None:
    script = target / "bin" / "fedcert"
    words = (sys.executable, "-S", script, "new", "my-app")
    run(*words, cwd=tmp_path, path=installed_path)
    assert (tmp_path / "my-app" / "my_app" / "data.py").is_file()
