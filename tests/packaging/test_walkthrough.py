"""The pages that somebody new follows, executed from top to bottom in one folder."""

from __future__ import annotations

import doctest
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from extending.blocks import DOCS, blocks, run_commands

from fedcert.scenarios import load_scenario

# In their order: a page goes on in the folder of those before it.
PAGES = ("tutorial.md", "devices-step-by-step.md", "own.md")
_BLOCK = re.compile(
    r"^<!-- (?P<role>run|file|output): (?P<name>\S+) -->\n"
    r"```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_FENCES = re.compile(r"^```(sh|python)$", re.MULTILINE)


def _blocks(page: str) -> list[re.Match[str]]:
    return list(_BLOCK.finditer((DOCS / page).read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("walkthrough")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("FEDCERT_STATE", str(place / "state"))
        patch.setenv("COLUMNS", "200")
        yield place


@pytest.mark.parametrize("page", PAGES)
def test_every_snippet_of_the_pages_is_named_and_so_executed(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    named = [match for match in _blocks(page) if match["role"] != "output"]
    assert len(named) == len(_FENCES.findall(text)) > 0
    ran = {match["name"] for match in _blocks(page) if match["role"] == "run"}
    assert {match["name"] for match in _blocks(page) if match["role"] == "output"} <= ran


@pytest.mark.parametrize("page", PAGES)
def test_the_page_does_what_it_says(
    page: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    known: dict[str, Any] = {}
    said: dict[str, str] = {}
    for block in _blocks(page):
        name, text = block["name"], block["text"]
        if block["role"] == "file":
            (folder / name).write_text(text, encoding="utf-8")
        elif block["role"] == "output":
            assert matches(text, said[name]), f"{page}, {name}:\n{said[name]}"
        else:
            capfd.readouterr()
            if block["language"] == "sh":
                run_commands(text, monkeypatch)
            else:
                exec(text, known)
            said[name] = capfd.readouterr().out


def test_the_readmes_python_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In a folder as the README has it, with the bundle of the tutorial's run."""
    run = folder / "runs" / "first"
    if not run.is_dir():
        run_commands(blocks("tutorial.md", "run")["simulate"], monkeypatch)
    place = folder / "readme"
    place.mkdir()
    for name in ("bundle", "base-model"):
        (place / name).symlink_to((run / name).resolve())
    digits = load_scenario("digits", {"upstream": 12, "new": 5})
    examples = digits.support_examples(digits.new_clients[4], 64)
    names = np.array(digits.labels)[examples.labels]
    rows = np.column_stack([names, examples.inputs.reshape(64, -1).astype(str)])
    header = ["label", *(f"p{index}" for index in range(64))]
    text = "\n".join(",".join(row) for row in [header, *rows])
    (place / "examples.csv").write_text(text)
    monkeypatch.chdir(place)
    exec(blocks("../README.md", "run")["personalize"], {})
    assert capfd.readouterr().out.splitlines()[-1] == "True"


def matches(wanted: str, got: str) -> bool:
    """Compare as doctests do, with ``...`` for anything, and any white space for any other."""
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(wanted, got, options)


def test_outputs_are_compared() -> None:
    assert matches("a ... c\n", "a\n b b c\n")
    assert not matches("a ... c\n", "a b b d\n")
