"""The Ray runner on a cluster that somebody else has started."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedcert.simulations.runners.flower_internals import RayGrid, ray_backend
from simulations.counting import ask, counting_app, counts


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Start a cluster of one machine with two CPUs, as an administrator would."""
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as temporary:
        command = (  # sockets go below the temporary folder: its name must be short
            *(Path(sys.executable).with_name("ray"), "start", "--head", "--block"),
            *(f"--port={port}", "--node-ip-address=127.0.0.1", f"--temp-dir={temporary}"),
            *("--num-cpus=2", f"--object-store-memory={80 * 2**20}"),
            *("--disable-usage-stats", "--include-dashboard=false"),
        )
        with subprocess.Popen(
            list(map(str, command)),
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            try:
                _wait_for_port(port, process)
                monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
                yield f"127.0.0.1:{port}"
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
                process.wait(30)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "the cluster did not start"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            time.sleep(2)  # the port is open before the node has registered
            return
        time.sleep(0.2)
    raise AssertionError("the cluster did not open its port")


@pytest.mark.slow
def test_a_cluster_that_is_there_is_used_and_goes_on(cluster: str, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    for _ in range(2):  # leaving it must not end it
        with (
            ray_backend(counting_app(), actors=7, folder=folder) as backend,
            RayGrid(backend, nodes=3) as grid,
        ):
            assert backend.num_workers == 2  # its CPUs, not what this machine would start
            assert len(counts(list(grid.send_and_receive(ask(grid, "count"))))) == 3
