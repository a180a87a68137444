"""``fedcert deploy local``, as the documentation runs it."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedcert.deployment.processes import marked

pytestmark = pytest.mark.deploy

_COMMAND = [sys.executable, "-m", "fedcert.cli", "deploy", "local"]


def _lines(output: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run the command; yield each line that it prints, as it comes, and check its end."""
    process = subprocess.Popen(
        [*_COMMAND, "--output", str(output), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        yield line.rstrip("\n"), process
    process.stdout.close()
    process.wait(60)


def test_it_ends_with_certificates_and_says_how_to_verify_them(tmp_path: Path) -> None:
    lines, process = [], None
    for line, process in _lines(tmp_path / "out", "--set", "training.steps=20"):  # noqa: B007
        lines.append(line)
    assert process is not None
    assert process.returncode == 0, lines
    assert "2 of 2 new clients have a certificate" in lines
    phases = ["server: train upstream adapters", "server: fit the prior"]
    assert [line for line in lines if line in phases] == phases
    verify = shlex.split(lines[-1])
    assert verify[:2] == ["fedcert", "verify"]
    command = [str(Path(sys.executable).parent / "fedcert"), *verify[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # The same folder again, ended from outside while the nodes are at work.
    again = []
    for line, process in _lines(tmp_path / "out", "--set", "training.steps=20"):
        again.append(line)
        if line == "run the app":
            assert len(marked(f"{tmp_path / 'out'}|")) >= 4
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 130
    assert again[-1].startswith("interrupted; ")
    assert "run the app" in again
    assert not any(line.startswith(("grow the pool", "register")) for line in again)
    assert marked(f"{tmp_path / 'out'}|") == []
