"""A verifier needs no model library: the import graph of `fedcert.certificates`."""

from __future__ import annotations

import subprocess
import sys

FORBIDDEN = {"torch", "transformers", "peft", "diffusers", "flwr", "ray", "pydantic"}


def test_no_heavy_library_is_imported() -> None:
    program = "import fedcert.certificates, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not FORBIDDEN & {name.partition(".")[0] for name in done.stdout.split()}
