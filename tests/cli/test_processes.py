"""The command as a process of its own: exit status, streams, and what a plain shell sees."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

from fedcert.simulations.simulating import Simulation

# As on a user's machine: nothing of what the tests set is there to silence libraries.
PLAIN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("HF_", "TRANSFORMERS_", "FLWR_"))
} | {"HF_HUB_OFFLINE": "1"}


def _fedcert(
    *arguments: object, file_size: int | None = None
) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        if file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))

    return subprocess.run(
        [sys.executable, "-m", "fedcert.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=PLAIN,
        cwd="/",
        timeout=120,
        check=False,
        preexec_fn=limit,
    )


def test_help_answers_without_heavy_libraries() -> None:
    code = (
        "import sys; sys.argv = ['fedcert', 'simulate', '--help']\n"
        "from fedcert.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    print(sorted({'torch', 'flwr', 'ray', 'scipy'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=PLAIN, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_mistake_in_the_call_is_status_2() -> None:
    done = _fedcert("verify", "--no-such-option")
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such option" in done.stderr


def test_personalize_on_a_plain_shell_prints_json_alone(
    finished: Simulation, data: Path, key: Path, tmp_path: Path
) -> None:
    done = _fedcert(
        *("personalize", data, "--bundle", finished.output / "bundle", "--client", "device"),
        *("--key", key, "--output", tmp_path / "out", "--json"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (tmp_path / "out" / "certificate.json").read_text()


def test_a_disk_quota_leaves_the_old_report(finished: Simulation) -> None:
    report = finished.output / "report.html"
    before, names = report.read_bytes(), sorted(finished.output.iterdir())
    done = _fedcert("report", finished.output, file_size=1000)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {report}: File too large\n"
    assert report.read_bytes() == before
    assert sorted(finished.output.iterdir()) == names
