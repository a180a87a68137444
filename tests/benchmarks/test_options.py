"""Tests for the options that benchmarks share."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

_MAKEFILE = Path(__file__).resolve().parents[2] / "Makefile"
_MODULE = re.compile(r"-m (fedcert\.simulations\.benchmarks\.\w+)")
MODULES = sorted(set(_MODULE.findall(_MAKEFILE.read_text(encoding="utf-8"))))


def test_the_makefile_runs_benchmarks() -> None:
    assert len(MODULES) >= 20


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("module", MODULES)
def test_help_runs_nothing(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")
    assert ended.value.code == 0
    assert "usage:" in capsys.readouterr().out
