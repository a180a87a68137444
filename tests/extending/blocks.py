"""The examples of the documentation: files and commands, as they stand on a page.

A comment in front of a code block names it: ``<!-- file: NAME -->`` for a file, and
``<!-- run: NAME -->`` for commands. Readers do not see it.
"""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from fedcert.cli import main

DOCS = Path(__file__).parents[2] / "docs"

_BLOCK = re.compile(
    r"(?:^<!-- (?P<role>file|run): (?P<name>\S+) -->\n)?^```(?P<language>\w+)\n"
    r"(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def blocks(page: str, role: str) -> dict[str, str]:
    """Return a page's blocks of one role by name, in their order."""
    found: dict[str, str] = {}
    for match in _BLOCK.finditer((DOCS / page).read_text(encoding="utf-8")):
        if match["role"] == role:
            assert match["name"] not in found, f"{page} has two blocks named {match['name']}"
            found[match["name"]] = match["text"]
    return found


def unnamed(page: str, language: str) -> list[str]:
    """Return the first lines of a page's blocks in a language that have no name."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return [
        match["text"].partition("\n")[0]
        for match in _BLOCK.finditer(text)
        if match["language"] == language and match["name"] is None
    ]


def run_commands(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the lines of a shell block in this process and the working directory.

    Starting an interpreter for each would take longer than the work. What is no command of
    the kinds below fails, so that nothing on a page is skipped in silence.
    """
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line)
        if words == ["export", "PYTHONPATH=$PWD"]:
            monkeypatch.syspath_prepend(Path.cwd())
        elif words[0] == "python":
            runpy.run_path(words[1], run_name="__main__")
        else:
            assert words[0] == "fedcert", line
            assert command(*words[1:], monkeypatch=monkeypatch) == 0, line


def command(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a command of fedcert; return its exit status."""
    monkeypatch.setattr(sys, "argv", ["fedcert", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code if isinstance(ended.value.code, int) else 0
