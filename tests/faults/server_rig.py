"""A server in a process of its own, small enough to kill often, and a look at what it left.

Each run forks from a process that has imported everything (`multiprocessing`'s fork server),
takes about a second, and can be made to break at a named point: the functions there are
wrapped in that process alone, so the library knows nothing of it.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from faults.device_rig import LABELS, SIDE, make_base, make_examples
from fedcert.data import Examples, ImageInputs
from fedcert.randomness import keyed_generator
from fedcert.scenarios import Scenario

__all__ = ["NEW", "POINTS", "UPSTREAM", "Ended", "Run", "Small", "start"]

UPSTREAM, NEW = 13, 2
_LONGEST = 120.0  # seconds; a run takes about one

# What a run would import on its way, some of it only when it is first used.
_PRELOADED = [
    "faults.server_rig",
    "fedcert.simulations.runners.flower_internals",
    "fedcert.clients.client_app",
    "fedcert.strategies.run",
    "fedcert.strategies.serving",
    "peft",
    "scipy.stats",
    "transformers.models.auto.modeling_auto",
    "transformers.models.vit.modeling_vit",
]

POINTS: Mapping[str, tuple[str, str, int, bool]] = {
    "upload not written": ("fedcert.pool.store", "write_atomically", 6, False),
    "upload half pooled": ("fedcert.pool.store", "write_atomically", 6, True),
    "upload pooled": ("fedcert.pool.store:Pool", "add", 6, True),
    "fitting": ("fedcert.strategies.run", "fit_prior", 1, False),
    "bundle half written": ("fedcert.bundles.bundle", "write_atomically", 1, True),
    "bundle not linked": ("fedcert.bundles.versions:BundleVersions", "_point_to", 1, False),
    "bundle not logged": ("fedcert.protocol.authority:SeedAuthority", "publish", 1, False),
    "committed, no seed": ("fedcert.protocol.authority:SeedAuthority", "_draw", 1, False),
    "seed not sent": ("fedcert.protocol.authority:SeedAuthority", "issue", 1, True),
    "certificate not filed": (
        "fedcert.protocol.authority:SeedAuthority",
        "countersign",
        1,
        True,
    ),
}
"""Where a run can break: what is wrapped, at which call, and whether after it."""


class Small(Scenario):
    """Clients of tiny images, on a base model that is given.

    Parameters
    ----------
    base : str
        Folder of the base model.
    """

    name = "small"
    description = "Bright on one side? (random images of 4 x 4 pixels)"
    labels = LABELS
    inputs = ImageInputs(channels=1, height=SIDE, width=SIDE, low=0.0, high=1.0)

    def __init__(self, *, base: str) -> None:
        self._base = Path(base)

    @property
    def upstream_clients(self) -> tuple[str, ...]:
        """All that may ever be there."""
        return tuple(f"upstream-{index:02d}" for index in range(UPSTREAM))

    @property
    def new_clients(self) -> tuple[str, ...]:
        """Those that are certified."""
        return tuple(f"new-{index:02d}" for index in range(NEW))

    def base_model(self, *, on_step: Callable[[str], None] = lambda _: None) -> Path:
        """Return the folder that was given."""
        return self._base

    def training_examples(self, client: str) -> Examples:
        """Draw a few."""
        return make_examples(24, seed=_seed_of("training", client))

    def support_examples(self, client: str, size: int) -> Examples:
        """Draw as many as wanted."""
        return make_examples(size, seed=_seed_of("support", client))

    def test_examples(self, client: str) -> Examples | None:
        """Return none: nothing is measured."""
        return None


def _seed_of(part: str, client: str) -> int:
    return int(keyed_generator("small", part, client).integers(2**31))


@dataclass(frozen=True)
class Run:
    """How a run is to go.

    Attributes
    ----------
    point : str
        Where it breaks, one of `POINTS`; empty for a run that is left alone.
    how : str
        ``"kill"`` (SIGKILL), ``"full"`` (from there on no file can grow, as on a full disk),
        or ``"wait"`` (it stands still there).
    absent : int
        Upstream clients, the last ones, that are not there.
    clock : float
        Seconds by which Python's clock is off.
    """

    point: str = ""
    how: str = "kill"
    absent: int = 0
    clock: float = 0.0


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes
    ----------
    status : int
        Exit status; the negative number of the signal that killed it.
    error : str or None
        What a run that failed said.
    """

    status: int
    error: str | None


class _Started:
    """A run under way."""

    def __init__(self, process: BaseProcess, pipe: Connection) -> None:
        self._process, self._pipe = process, pipe

    def reached(self) -> None:
        """Return once the run stands still at its point."""
        if not self._pipe.poll(_LONGEST) or self._pipe.recv() != "there":
            raise TimeoutError("the run never came to its point")

    def kill(self) -> None:
        """End it as the system's out-of-memory killer would."""
        self._process.kill()

    def end(self) -> Ended:
        """Wait for its end."""
        self._process.join(_LONGEST)
        if self._process.exitcode is None:
            self._process.kill()
            raise TimeoutError("the run did not end")
        error = None
        with suppress(EOFError):  # of a run that was killed, or went well
            error = self._pipe.recv() if self._pipe.poll() else None
        return Ended(self._process.exitcode, error)


def start(folder: Path, run: Run = Run()) -> _Started:
    """Start a run on a folder; the server's state is in ``state``, its output in ``run``."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_main, args=(folder, run, theirs))
    process.start()
    theirs.close()
    return _Started(process, ours)


def _main(folder: Path, run: Run, pipe: Connection) -> None:
    """Do one run, in a process of its own."""
    import logging

    logging.disable(logging.CRITICAL)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    if run.clock:
        real = time.time
        time.time = lambda: real() + run.clock
    try:
        if run.point:
            _arm(run, pipe)
        _serve(folder, run)
    except Exception as error:
        pipe.send(str(error))
        os._exit(1)


def _arm(run: Run, pipe: Connection) -> None:
    """Let the run break at its point."""
    import importlib

    where, name, nth, after = POINTS[run.point]
    module, _, owner = where.partition(":")
    holder: Any = importlib.import_module(module)
    holder = getattr(holder, owner) if owner else holder
    original = getattr(holder, name)
    calls = itertools.count(1)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        now = next(calls) == nth
        if now and not after:
            _break(run.how, pipe)
        result = original(*args, **kwargs)
        if now and after:
            _break(run.how, pipe)
        return result

    setattr(holder, name, wrapped)


def _break(how: str, pipe: Connection) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "full":
        import resource

        # The kernel refuses every write that would make a file longer.
        _, hardest = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hardest))
    else:
        pipe.send("there")
        time.sleep(_LONGEST)


def _serve(folder: Path, run: Run) -> None:
    from fedcert.clients.client_app import make_client_app
    from fedcert.settings import RunSettings
    from fedcert.simulations.runners.flower_internals import LocalGrid
    from fedcert.strategies.serving import serve

    base, output = folder / "base-model", folder / "run"
    if not base.is_dir():
        make_base(base)
    settings = RunSettings.from_flat(
        {
            "scenario.name": f"{__name__}:Small",
            "scenario.options.base": str(base),
            "adapter.rank": 2,
            "training.steps": 1,
            "prior.kind": "gaussian",
            "certificate.candidates": 20,
            "certificate.support_size": 32,
            "server.min_pool": 10,
            "server.nodes": UPSTREAM - run.absent + NEW,
            "server.state": str(folder / "state"),
        }
    )
    honest = make_client_app(settings, output)
    ids = Small(base=str(base))
    names = ids.upstream_clients + ids.new_clients

    def noted(message: Any, context: Any) -> Any:
        kind, client = message.metadata.message_type, names[context.node_config["partition-id"]]
        with (folder / "asked").open("a", encoding="ascii") as file:
            file.write(f"{kind} {client}\n")
        # Keys and salts of their own, not those that follow from a simulation's seed.
        context.node_config["key-path"] = str(folder / "keys" / client)
        return honest(message, context)

    class Some(LocalGrid):
        def get_node_ids(self) -> Iterable[int]:
            nodes = list(super().get_node_ids())
            return nodes[: UPSTREAM - run.absent] + nodes[UPSTREAM:]

    client_app: Any = noted
    serve(Some(client_app, nodes=UPSTREAM + NEW), settings, output=output)
