"""Whoever verifies a record, or certifies counts, needs no model library."""

from __future__ import annotations

import subprocess
import sys

import pytest

FORBIDDEN = {"torch", "transformers", "peft", "diffusers", "flwr", "ray", "pydantic"}


@pytest.mark.parametrize(
    "module",
    [
        "fedcert",
        "fedcert.certificates",
        "fedcert.protocol.history",
        "fedcert.protocol.witness",
        "fedcert.verification.report",
        "fedcert.cli.app",
    ],
)
def test_no_heavy_library_is_imported(module: str) -> None:
    program = f"import {module}, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not FORBIDDEN & {name.partition(".")[0] for name in done.stdout.split()}
