"""The Ray runner: the same results as in this process, and nothing left running."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedcert.certificates import Certificate
from fedcert.errors import RunError
from fedcert.runs.progress import Viewer
from fedcert.simulations.runners import ray_engine
from fedcert.simulations.runners.ray_engine import run_with_ray
from fedcert.simulations.simulating import Simulation, simulate
from simulations.federation import CLIENTS, UPSTREAM, tiny_settings

GRACE = 15.0
"""Seconds that Ray's processes may take to end."""

MARK = "FEDCERT_TEST_RUN"
"""An environment variable: every process of a run inherits it."""


@dataclass
class Comparison:
    ray: Simulation
    here: Simulation
    running: list[str]
    left: list[str]
    before: tuple[Path, int]
    after: tuple[Path, int]


class Watcher(Viewer):
    """Looks in the middle of the run at what is running."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self.running: list[str] = []

    def on_phase(self, name: str, total: int | None) -> None:
        if name == "certify new clients":
            self.running = _marked(self._mark)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """One run on Ray, one in this process; in both a client fails."""
    folder = tmp_path_factory.mktemp("ray")
    settings = tiny_settings(scenario__options__broken=CLIENTS[3])
    before = _surroundings()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(MARK, folder.name)
        watcher = Watcher(folder.name)
        ray = simulate(settings, output=folder / "ray", runner="ray", listeners=[watcher])
    after = _surroundings()
    left = _left(folder.name)
    here = simulate(settings, output=folder / "here", runner="inprocess")
    return Comparison(ray, here, watcher.running, left, before, after)


def _surroundings() -> tuple[Path, int]:
    return Path.cwd(), logging.getLogger("flwr").level


def _marked(mark: str) -> list[str]:
    """Find processes that inherited our mark, whoever their parent is by now."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.pid != os.getpid():
                found.append(" ".join(process.cmdline())[:200])
        except psutil.Error:  # it has ended, or is somebody else's
            continue
    return found


def _left(mark: str) -> list[str]:
    """Wait until all have ended; name those that have not."""
    deadline = time.monotonic() + GRACE
    while (left := _marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def test_certificates_are_the_same_to_the_byte(comparison: Comparison) -> None:
    assert comparison.ray.results["digests"] == comparison.here.results["digests"]
    for client in CLIENTS[UPSTREAM:]:
        name = Path("clients") / client / "certificate.json"
        written = (comparison.ray.output / name).read_bytes()
        assert written == (comparison.here.output / name).read_bytes()
        assert Certificate.from_json(written.decode()).client == client


def test_a_client_that_fails_is_reported_once_with_the_same_cause(
    comparison: Comparison,
) -> None:
    cause = f"RuntimeError: the disk of {CLIENTS[3]} is gone"
    expected = [{"phase": "training", "cause": cause, "clients": 1, "named": [CLIENTS[3]]}]
    assert comparison.ray.results["failures"] == expected
    assert comparison.here.results["failures"] == expected
    assert comparison.ray.results["prior"]["pool_size"] == UPSTREAM - 1


def test_nothing_is_left_running(comparison: Comparison) -> None:
    assert any("raylet" in command for command in comparison.running)
    assert comparison.left == []


def test_working_directory_and_log_are_as_before(comparison: Comparison) -> None:
    assert comparison.after == comparison.before


@pytest.mark.slow
def test_a_warm_start_makes_the_same_base_model_and_certificates(tmp_path: Path) -> None:
    settings = tiny_settings(
        warm_start__rounds=2,
        warm_start__clients_per_round=5,
        warm_start__steps=2,
        warm_start__personal_steps=2,
        warm_start__rank=2,
    )
    ray, here = (
        simulate(settings, output=tmp_path / runner, runner=runner).results
        for runner in ("ray", "inprocess")
    )
    assert ray["failures"] == here["failures"] == []
    assert ray["warm_start"]["before"] != ray["warm_start"]["after"]
    assert ray["warm_start"]["after"] == ray["digests"]["base model"]
    assert ray["warm_start"]["after"] == here["warm_start"]["after"]
    assert ray["digests"] == here["digests"]


def test_without_ray_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RunError, match=r"pip install 'fedcert\[simulation\]'.*inprocess"):
        run_with_ray(ServerApp(), ClientApp(), nodes=1)


@pytest.mark.parametrize("place", ["{}", "ray://{}"])
def test_a_cluster_that_does_not_answer_is_one_quick_line(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = place.format(f"127.0.0.1:{unused.getsockname()[1]}")
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(RunError, match=f"{address}' in the environment, and no Ray"):
            run_with_ray(ServerApp(), ClientApp(), nodes=1)


def test_an_address_without_a_port_is_left_to_ray() -> None:
    for address in ("", "auto", "local"):
        ray_engine._check_cluster(address)
