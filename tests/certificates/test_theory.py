"""docs/theory.md computes its examples: this runs them."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
THEORY = DOCS / "theory.md"


@pytest.mark.parametrize(("page", "least"), [("theory.md", 6), ("protocol.md", 3)])
def test_the_examples_give_what_the_text_shows(page: str, least: int) -> None:
    results = doctest.testfile(str(DOCS / page), module_relative=False, verbose=False)
    assert results.attempted >= least
    assert results.failed == 0


def test_the_program_runs(capsys: pytest.CaptureFixture[str]) -> None:
    [program] = re.findall(r"```python\n(.*?)```", THEORY.read_text(), re.DOTALL)
    exec(program, {})
    kinds, _, bounds = zip(
        *(line.split() for line in capsys.readouterr().out.splitlines()), strict=True
    )
    assert kinds == ("steel", "union", "split")
    assert sorted(map(float, bounds), reverse=True) == [float(bound) for bound in bounds]
