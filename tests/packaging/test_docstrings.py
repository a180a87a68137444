"""Docstrings: sections where a signature alone says too little, and examples that run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from fedcert.cli import app as cli

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "fedcert": "fedcert",
    "strategies": "fedcert.strategies",
    "clients": "fedcert.clients",
    "simulations": "fedcert.simulations",
}
FEWEST = 3
"""Parameters from which on a function has to say what they are."""


def _sources() -> dict[str, Path]:
    """Return the file of each module, by the module's name."""
    sources = {}
    for folder, name in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside = path.relative_to(ROOT / folder).with_suffix("").parts
            # The app for `flwr run` is a project of its own.
            if inside[-1] != "__main__" and inside[0] not in {"app", "templates"}:
                sources[".".join([name, *inside]).removesuffix(".__init__")] = path
    return sources


SOURCES = _sources()
NAMED = re.compile(r"`(fedcert(?:\.\w+)+)`")
"""What code says of a module or of something in one."""
EXAMPLES = [name for name, path in SOURCES.items() if ">>> " in path.read_text("utf-8")]


def _commands(app: typer.Typer) -> Iterator[Callable[..., Any]]:
    """Yield what commands call; each of their parameters has a help text instead."""
    for command in app.registered_commands:
        assert command.callback is not None
        yield command.callback
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from _commands(group.typer_instance)


COMMANDS = set(_commands(cli.app))


def _functions(module: ModuleType) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the public functions and methods that a module defines, by qualified name."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value):
            yield f"{module.__name__}.{name}", value
        elif inspect.isclass(value):
            yield from _methods(value)


def _methods(cls: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, value in vars(cls).items():
        function = getattr(value, "__func__", value)
        if name.startswith("_") or not inspect.isfunction(function):
            continue
        # What overrides a method is documented where that is.
        if not any(name in vars(base) for base in cls.__mro__[1:]):
            yield f"{cls.__module__}.{cls.__qualname__}.{name}", function


def _parameters(function: Callable[..., Any]) -> list[str]:
    names = inspect.signature(function).parameters
    return [name for name in names if name not in {"self", "cls"}]


def _sections(function: Callable[..., Any]) -> dict[str, list[str]]:
    """Return the lines of a docstring's sections, by title."""
    lines = (inspect.getdoc(function) or "").splitlines()
    sections: dict[str, list[str]] = {"": []}
    title = ""
    for number, line in enumerate(lines):
        below = lines[number + 1] if number + 1 < len(lines) else ""
        if below and set(below) == {"-"}:
            title = line
            sections[title] = []
        elif set(line) != {"-"}:
            sections[title].append(line)
    return sections


def _lacks(function: Callable[..., Any]) -> list[str]:
    """Return what a docstring should have said and does not."""
    parameters = _parameters(function)
    if len(parameters) < FEWEST or function in COMMANDS:
        return []
    sections = _sections(function)
    # A line that is not indented names parameters: "low, high : float".
    named = {
        name.strip().lstrip("*")
        for line in sections.get("Parameters", [])
        if line and not line.startswith(" ")
        for name in line.partition(" : ")[0].split(",")
    }
    lacking = [name for name in parameters if name not in named]
    returned = function.__annotations__.get("return")
    if returned not in {"None", "NoReturn"} and not {"Returns", "Yields"} & sections.keys():
        lacking.append("what it returns")
    return lacking


def test_functions_say_what_they_take_and_return() -> None:
    lacking = {
        name: _lacks(function)
        for module in SOURCES
        for name, function in _functions(importlib.import_module(module))
    }
    assert len(lacking) > 500
    assert {name: what for name, what in lacking.items() if what} == {}


def test_what_is_lacking_is_noticed() -> None:
    def good(a: int, b: int, c: int) -> int:
        """Add.

        Parameters
        ----------
        a, b : int
            Two numbers.
        c : int
            A third one.

        Returns
        -------
        int
            The sum.
        """
        return a + b + c

    def poor(a: int, b: int, c: int) -> int:
        """Add.

        Parameters
        ----------
        a, b : int
            Two numbers.
        """
        return a + b + c

    assert _lacks(good) == []
    assert _lacks(poor) == ["c", "what it returns"]


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 12
    assert {"fedcert.api", "fedcert.certificates.bounds"} <= set(EXAMPLES)


@pytest.mark.parametrize("module", EXAMPLES)
def test_examples_in_docstrings_run(module: str) -> None:
    outcome = doctest.testmod(
        importlib.import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert outcome.attempted > 0
    assert outcome.failed == 0


@pytest.mark.parametrize("name", SOURCES)
def test_what_code_speaks_of_is_there(name: str) -> None:
    for wanted in NAMED.findall(SOURCES[name].read_text("utf-8")):
        assert _is_there(wanted), f"{name} speaks of {wanted}, which is not there"


def _is_there(wanted: str) -> bool:
    """Whether a dotted name is that of a module, or leads on from one."""
    parts = wanted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        try:
            for part in parts[length:]:
                found = getattr(found, part)
        except AttributeError:
            # Fields of dataclasses without a default are no attributes of the class.
            return parts[-1] in getattr(found, "__dataclass_fields__", {})
        return True
    return False
