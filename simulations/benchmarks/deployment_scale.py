"""What a federation costs beyond its clients' own work: time, memory, and the pool.

Each run has a process of its own, so that one does not inherit the memory of another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedcert.adapters import encode
from fedcert.clients.client_app import make_client_app
from fedcert.messages import TRAIN
from fedcert.models.base import load_base_model
from fedcert.pool import Pool
from fedcert.pool.robustness import screen_pool
from fedcert.randomness import keyed_generator
from fedcert.runs.events import Events
from fedcert.runs.machine import PeakMemory
from fedcert.runs.progress import Stopwatch
from fedcert.scenarios import load_scenario
from fedcert.settings import RunSettings
from fedcert.simulations.benchmarks.publishing import say
from fedcert.simulations.runners import RUNNERS
from fedcert.strategies.serving import serve

__all__ = ["TimedApp", "in_own_process", "pool_uploads", "run_federation"]

_TRAINING = "train upstream adapters"
_STARTING = "start the runner", "call the roll"


class _Stopwatch(Stopwatch):
    """Keeps the processor time of each phase, too: of this process, and with its children."""

    def __init__(self) -> None:
        super().__init__()
        self.cpu_seconds: dict[str, tuple[float, float]] = {}

    def on_phase(self, name: str, total: int | None) -> None:
        super().on_phase(name, total)
        self._phase, self._cpu = name, _cpu_seconds()

    def stop(self) -> None:
        if self._current is not None:
            now = _cpu_seconds()
            self.cpu_seconds[self._phase] = (now[0] - self._cpu[0], now[1] - self._cpu[1])
        super().stop()


def _cpu_seconds() -> tuple[float, float]:
    """Return the processor time of this process, and of it and its children."""
    own, process = time.process_time(), psutil.Process()
    everything = own
    for child in process.children(recursive=True):
        with suppress(psutil.Error):  # it ended meanwhile
            times = child.cpu_times()
            everything += times.user + times.system
    return own, everything


class TimedApp(ClientApp):
    """A ClientApp that notes how long it worked on each message.

    Parameters
    ----------
    app : ClientApp
        Does the work.
    path : Path
        Gets one line per message; processes may share it.
    """

    def __init__(self, app: ClientApp, path: Path) -> None:
        super().__init__()
        self._app, self._path = app, path

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer a message and note its time."""
        wall, cpu = time.perf_counter(), time.process_time()
        reply = self._app(message, context)
        line = {
            "message": message.metadata.message_type,
            "wall": time.perf_counter() - wall,
            "cpu": time.process_time() - cpu,
        }
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(handle, f"{json.dumps(line)}\n".encode())
        os.close(handle)
        return reply


def run_federation(clients: int, *, runner: str, folder: Path) -> dict[str, Any]:
    """Run a federation of the digits with default training, and say where the time went.

    Parameters
    ----------
    clients : int
        Upstream clients; one new client beside them.
    runner : str
        As for ``fedcert simulate``.
    folder : Path
        An empty run folder.

    Returns
    -------
    dict
        Seconds, and MiB at the peak. ``train_seconds`` is the phase as a user sees it, from
        the first message to the last upload in the pool; ``client_seconds`` is the sum of the
        times that clients took for their uploads, measured inside them. ``..._cpu_seconds``
        are processor times in that phase: of the clients' work, of the server, and of all
        processes.
    """
    settings = RunSettings.from_flat(
        {
            "scenario.name": "digits",
            "scenario.options.upstream": clients,
            "scenario.options.new": 1,
            "prior.kind": "gaussian",
        }
    )
    watch, server = _Stopwatch(), ServerApp()
    events = Events(watch)
    pooled: list[int] = []

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        outcome = serve(grid, settings, output=folder / "run", events=events)
        pooled.append(clients - len(outcome.strategy.failures))

    times = folder / "times.jsonl"
    app = TimedApp(make_client_app(settings, folder / "run"), times)
    with PeakMemory() as memory:
        events.phase(_STARTING[0])
        RUNNERS[runner](server, app, nodes=clients + 1)
        watch.stop()
    worked = [line for line in _lines(times) if line["message"] == TRAIN]
    return {
        "clients": clients,
        "pooled": pooled[0],
        "runner": runner,
        "train_seconds": watch.seconds[_TRAINING],
        "start_seconds": sum(watch.seconds.get(phase, 0.0) for phase in _STARTING),
        "client_seconds": sum(line["wall"] for line in worked),
        "client_cpu_seconds": sum(line["cpu"] for line in worked),
        "server_cpu_seconds": watch.cpu_seconds[_TRAINING][0],
        "all_cpu_seconds": watch.cpu_seconds[_TRAINING][1],
        "server_mib": memory.own_peak_mib,
        "total_mib": memory.peak_mib,
    }


def pool_uploads(
    count: int, *, folder: Path, settings: RunSettings | None = None
) -> dict[str, Any]:
    """Put uploads through the server's checks into a pool, one by one, as a server does.

    Parameters
    ----------
    count : int
        Uploads; random adapters in the space of the scenario's base model.
    folder : Path
        Gets the pool.
    settings : RunSettings, optional
        Scenario and adapter space; the digits by default.

    Returns
    -------
    dict
        ``seconds`` for all, seconds per upload of the first and the last tenth, ``mib`` that
        the process grew by, and the seconds that reading the pool and screening it for
        outliers take.
    """
    settings = settings or RunSettings()
    scenario = load_scenario(settings.scenario.name, settings.scenario.options)
    base = load_base_model(str(scenario.base_model()), num_labels=len(scenario.labels))
    space = settings.space_of(base)
    generator = keyed_generator("bench uploads")
    pool = Pool(folder / "pool", space)
    taken = []
    before = psutil.Process().memory_info().rss / 2**20
    with PeakMemory() as memory:
        for index in range(count):
            vector = 0.3 * generator.normal(size=space.dimension)
            tensors = encode(space, vector.astype(np.float32))
            started = time.perf_counter()
            pool.add(
                f"client-{index:06d}",
                tensors,
                space_digest=space.digest,
                examples=100,
                loss=0.1,
            )
            taken.append(time.perf_counter() - started)
        after_uploads = memory.own_peak_mib
        started = time.perf_counter()
        matrix = pool.matrix()
        read = time.perf_counter() - started
        screening = screen_pool(matrix)
        screened = time.perf_counter() - started - read
    tenth = max(1, count // 10)
    return {
        "uploads": len(pool),
        "seconds": sum(taken),
        "first_tenth_ms": 1e3 * float(np.mean(taken[:tenth])),
        "last_tenth_ms": 1e3 * float(np.mean(taken[-tenth:])),
        "mib": max(0.0, after_uploads - before),
        "read_seconds": read,
        "screen_seconds": screened,
        "screen_mib": memory.own_peak_mib - before,
        "kept": len(screening.kept),
        "dimension": space.dimension,
    }


def in_own_process(what: str, *arguments: object) -> dict[str, Any]:
    """Run one measurement of this module in a fresh process, and return what it gives."""
    command = [sys.executable, "-m", __name__, what, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)  # noqa: S603
    result: dict[str, Any] = json.loads(done.stdout.decode().splitlines()[-1])
    return result


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def _main() -> None:
    what, *arguments = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        if what == "run":
            clients, runner = arguments
            result = run_federation(int(clients), runner=runner, folder=Path(folder))
        else:
            result = pool_uploads(int(arguments[0]), folder=Path(folder))
    say(f"\n{json.dumps(result)}")


if __name__ == "__main__":
    _main()
