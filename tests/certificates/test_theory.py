"""docs/theory.md computes its examples: this runs them."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

THEORY = Path(__file__).resolve().parents[2] / "docs" / "theory.md"


def test_the_examples_give_what_the_text_shows() -> None:
    results = doctest.testfile(str(THEORY), module_relative=False, verbose=False)
    assert results.attempted >= 6
    assert results.failed == 0


def test_the_program_runs(capsys: pytest.CaptureFixture[str]) -> None:
    [program] = re.findall(r"```python\n(.*?)```", THEORY.read_text(), re.DOTALL)
    exec(program, {})
    kinds, _, bounds = zip(
        *(line.split() for line in capsys.readouterr().out.splitlines()), strict=True
    )
    assert kinds == ("steel", "union", "split")
    assert sorted(map(float, bounds), reverse=True) == [float(bound) for bound in bounds]
