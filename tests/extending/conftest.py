from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from extending.blocks import blocks, run_commands
from fedcert.certificates.recipes.base import RECIPES
from fedcert.data.kinds import INPUT_KINDS
from fedcert.priors import PRIORS
from fedcert.priors.registry import _STORED

REGISTRIES = (PRIORS, _STORED, RECIPES, INPUT_KINDS)

Forget = Callable[[], None]


@contextmanager
def forgetting() -> Iterator[Forget]:
    """Yield what makes this process one that has imported nothing of a user's.

    In the end it is one again: other tests go through all registered priors.
    """
    registered = [dict(registry) for registry in REGISTRIES]
    modules = set(sys.modules)

    def undo() -> None:
        for registry, before in zip(REGISTRIES, registered, strict=True):
            registry.clear()
            registry.update(before)
        for name in set(sys.modules) - modules:
            origin = Path(getattr(sys.modules[name], "__file__", None) or "/")
            if origin.parent.is_relative_to(Path(sys.prefix)) or name.startswith("fedcert"):
                continue
            if origin.suffix == ".py" and "lib" not in origin.parts:
                del sys.modules[name]

    try:
        yield undo
    finally:
        undo()


@pytest.fixture
def forget() -> Iterator[Forget]:
    with forgetting() as undo:
        yield undo


@pytest.fixture(scope="session")
def page_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files of the page, and what its commands made so far."""
    folder = tmp_path_factory.mktemp("extending")
    for name, text in blocks("extending.md", "file").items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def desk(page_folder: Path, forget: Forget, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to the folder; its modules can be imported, and are forgotten in the end."""
    monkeypatch.chdir(page_folder)
    monkeypatch.syspath_prepend(page_folder)
    return page_folder


def _made_by(commands: str, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, forgetting():
        patch.chdir(folder)
        run_commands(blocks("extending.md", "run")[commands], patch)


@pytest.fixture(scope="session")
def gradients_run(page_folder: Path) -> Path:
    """Return the run folder that the commands about scenarios leave."""
    _made_by("scenario", page_folder)
    return page_folder / "runs" / "gradients"


@pytest.fixture(scope="session")
def student_run(page_folder: Path) -> Path:
    """Return the run folder that the commands about priors leave."""
    _made_by("prior", page_folder)
    return page_folder / "runs" / "student"


@pytest.fixture(scope="session")
def recipe_run(page_folder: Path) -> Path:
    """Return the run folder that the commands about recipes leave."""
    _made_by("recipe", page_folder)
    return page_folder / "runs" / "recipe"
