"""How a run is doing, from its event log and its folder: ``fedcert status``."""

from __future__ import annotations

import socket
import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from fedcert.errors import RunError
from fedcert.runs.events import EVENTS_FILE, Event, read_events
from fedcert.runs.failures import Failure, failure_rows

__all__ = ["Progress", "RunStatus", "holds_work", "read_status"]

RUNNING, FINISHED, FAILED, DIED, UNKNOWN = "running", "finished", "failed", "died", "unknown"

# What a run folder has once a client has done its part, beside adapters in the pool.
_WORK = ("bundle", "bundles", "certificates", "clients", "witnesses", "results.json")

# A run on another machine that was silent for longer may have died.
_SILENCE = 600.0
_SAME_PROCESS = 1.0  # seconds by which two readings of a process's start may differ


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes
    ----------
    phase : str
        What it is doing, or did last.
    done, total : int or None
        Steps of the phase; the total is None if nobody knows it.
    round, rounds : int or None
        Flower's round and how many there are.
    seconds : float
        Since the phase began.
    seconds_left : float or None
        Until the phase ends, at its pace so far; None if there is nothing to tell it from.
    """

    phase: str = "starting"
    done: int = 0
    total: int | None = None
    round: int | None = None
    rounds: int | None = None
    seconds: float = 0.0
    seconds_left: float | None = None


@dataclass(frozen=True)
class RunStatus:
    """How the last run of a folder is doing.

    Attributes
    ----------
    run : str
        Its id.
    runs : int
        Runs that the folder has seen.
    command : str
        What runs, or ran.
    state : str
        ``running``, ``finished``, ``failed``, ``died`` (its process is gone and it did not
        say how it ended), or ``unknown`` (on another machine, and silent for ten minutes).
    cause : str
        Why it failed; otherwise empty.
    progress : Progress
        Phase, steps, and rounds.
    seconds : float
        From its start to its end, or to now.
    silent_seconds : float
        Since its last event.
    pool : int
        Adapters in the pool, those of earlier runs included.
    certificates : int
        Certificates in the folder, likewise.
    mean_certificate : float or None
        Mean bound of this run's certificates.
    waiting : list of str
        While it runs: who was asked for something and has not answered. A node that has not
        yet said which client it is goes by its number in Flower.
    seeds : int
        Seeds that this run issued.
    failures : list of dict
        ``phase``, ``cause``, number of ``clients``, and the first few of them as ``named``,
        each cause once.
    bytes_up, bytes_down : int
        From the clients and to them, in this run.
    bundle : dict or None
        ``digest`` and ``version`` of the last bundle that was published in this folder.
    """

    run: str
    runs: int
    command: str
    state: str
    cause: str
    progress: Progress
    seconds: float
    silent_seconds: float
    pool: int
    certificates: int
    mean_certificate: float | None
    waiting: list[str]
    seeds: int
    failures: list[dict[str, Any]]
    bytes_up: int
    bytes_down: int
    bundle: dict[str, Any] | None

    @property
    def well(self) -> bool:
        """Whether the run goes on or has done its job."""
        return self.state in (RUNNING, FINISHED)

    def to_object(self) -> dict[str, Any]:
        """Return everything as a JSON object."""
        return asdict(self)


def read_status(folder: Path) -> RunStatus:
    """Tell how the last run of a folder is doing.

    Parameters
    ----------
    folder : Path
        A run folder, of a finished run or one that goes on.

    Raises
    ------
    RunError
        If there is no run in it.
    """
    everything = read_events(folder / EVENTS_FILE)
    runs = list(dict.fromkeys(event.run for event in everything))
    starts = [event.run for event in everything if event.kind == "run-started"]
    if not starts:
        raise RunError(
            f"{folder} has no event log ({EVENTS_FILE}) with a run in it; name the folder that "
            "was given as --output, or as output in --run-config"
        )
    run = starts[-1]
    events = [event for event in everything if event.run == run]
    now, last = time.time(), events[-1].time
    begun = next(event for event in events if event.kind == "run-started")
    state, cause = _state(events, begun, now)
    end = last if state in (FINISHED, FAILED, DIED) else now
    bounds = [
        event.fields["bound"]
        for event in _of(events, "certificate-filed")
        if isinstance(event.fields.get("bound"), int | float)
    ]
    return RunStatus(
        run=run,
        runs=len(runs),
        command=str(begun.fields.get("command", "")),
        state=state,
        cause=cause,
        progress=_progress(events, end, running=state == RUNNING),
        seconds=max(0.0, end - begun.time),
        silent_seconds=max(0.0, now - last),
        pool=_pool_size(folder),
        certificates=len(list((folder / "certificates").glob("*.json"))),
        mean_certificate=sum(bounds) / len(bounds) if bounds else None,
        waiting=_waiting(events) if state == RUNNING else [],
        seeds=len(_of(events, "seed-issued")),
        failures=failure_rows(_failures(events)),
        bytes_up=_sum(events, "received", "bytes_up"),
        bytes_down=_sum(events, "sent", "bytes_down"),
        bundle=_last_bundle(everything),
    )


def holds_work(folder: Path) -> bool:
    """Say whether a run folder holds anything that a client made, or a run that goes on."""
    pooled = any((folder / "pool" / "adapters").glob("*"))
    if pooled or any((folder / name).exists() for name in _WORK):
        return True
    try:
        return read_status(folder).state in (RUNNING, UNKNOWN)
    except RunError:  # no run ever began
        return False


def _state(events: Sequence[Event], begun: Event, now: float) -> tuple[str, str]:
    ended = _of(events, "run-ended")
    if ended:
        fields = ended[-1].fields
        failed = fields.get("status") != FINISHED
        return (FAILED, str(fields.get("cause", ""))) if failed else (FINISHED, "")
    if begun.fields.get("host") == socket.gethostname():
        return (RUNNING, "") if _lives(begun) else (DIED, "")
    return (RUNNING, "") if now - events[-1].time < _SILENCE else (UNKNOWN, "")


def _lives(begun: Event) -> bool:
    """Say whether the run's process is there; another one may have got its number."""
    try:
        process = psutil.Process(int(begun.fields["pid"]))
        started = float(begun.fields["process_started"])
        same = abs(process.create_time() - started) < _SAME_PROCESS
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False


def _progress(events: Sequence[Event], end: float, *, running: bool) -> Progress:
    number = rounds = None
    for event in _of(events, "round"):
        number = event.fields.get("number", number)
        rounds = event.fields.get("total", rounds)
    places = [place for place, event in enumerate(events) if event.kind == "phase"]
    if not places:
        begun = next(event for event in events if event.kind == "run-started")
        return Progress(round=number, rounds=rounds, seconds=max(0.0, end - begun.time))
    # By their order, not by their times: a clock may be set back.
    phase, steps = events[places[-1]], _of(events[places[-1] :], "progress")
    done, total = int(steps[-1].fields["done"]) if steps else 0, phase.fields.get("total")
    left = None
    if running and done and isinstance(total, int) and done <= total:
        # The pace up to the last step that is known, and what has passed since then.
        taken, since = steps[-1].time - phase.time, end - steps[-1].time
        if taken > 0 and since >= 0:
            left = max(0.0, taken / done * (total - done) - since)
    return Progress(
        phase=str(phase.fields.get("name")),
        done=done,
        total=total,
        round=number,
        rounds=rounds,
        seconds=max(0.0, end - phase.time),
        seconds_left=left,
    )


def _waiting(events: Iterable[Event]) -> list[str]:
    """Return who was asked last for something and has neither answered nor failed."""
    waiting: dict[str, None] = {}
    for event in events:
        if event.kind == "sent":
            named = event.fields.get("to")
            waiting |= dict.fromkeys(map(str, named if isinstance(named, list) else ()))
        elif event.kind in ("received", "failure", "upload-refused"):
            waiting.pop(str(event.fields.get("client")), None)
    return list(waiting)


def _failures(events: Iterable[Event]) -> list[Failure]:
    return [
        Failure(*(str(event.fields.get(name)) for name in ("client", "phase", "cause")))
        for event in events
        if event.kind in ("failure", "upload-refused")
    ]


def _pool_size(folder: Path) -> int:
    """Count the pool's adapters, without what opening a pool takes: its space, and torch."""
    path = (folder / "pool" / "pool.sqlite").resolve()
    if not path.is_file():
        return 0
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as index:
            return int(index.execute("SELECT COUNT(*) FROM adapters").fetchone()[0])
    except sqlite3.Error:  # being made at this moment
        return 0


def _last_bundle(events: Iterable[Event]) -> dict[str, Any] | None:
    published = _of(events, "bundle-published")
    if not published:
        return None
    fields = published[-1].fields
    return {"digest": fields.get("digest"), "version": fields.get("version")}


def _of(events: Iterable[Event], kind: str) -> list[Event]:
    return [event for event in events if event.kind == kind]


def _sum(events: Iterable[Event], kind: str, field: str) -> int:
    values = (event.fields.get(field) for event in _of(events, kind))
    return sum(value for value in values if isinstance(value, int))
