"""The core does without Flower, Ray, and matplotlib; who lacks an extra is told which one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fedcert.simulations.simulating import Simulation

EXTRAS = ("datasets", "fastapi", "flwr", "matplotlib", "pandas", "ray", "sklearn", "uvicorn")

# A name that is None in sys.modules cannot be imported, as if it were not installed.
_WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1].split(",")))
sys.argv = ["fedcert", *sys.argv[2:]]
from fedcert.cli import main
main()
"""


def without_extras(*words: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a process in which no extra is installed."""
    command = [sys.executable, "-c", _WITHOUT, ",".join(EXTRAS), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_verifying_needs_no_extra(finished: Simulation) -> None:
    run = finished.output
    certificate = next((run / "clients").glob("*/certificate.json"))
    done = without_extras("verify", certificate, "--bundle", run / "bundle")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "extra"),
    [(["simulate", "digits"], "simulation"), (["report"], "report")],
    ids=["simulate", "report"],
)
def test_a_command_names_the_extra_that_is_missing(
    words: list[str], extra: str, finished: Simulation, tmp_path: Path
) -> None:
    if words == ["report"]:
        words = ["report", str(finished.output)]
    done = without_extras(*words, "--output", tmp_path / "out")
    assert done.returncode == 1
    assert extra in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
