"""The event log of a run: one line of JSON per event, in the run folder.

The log tells people and tools how a run goes while it goes; nothing reads it to decide what
to do. It holds ids, counts, causes, and digests. What an event may hold is fixed in `KINDS`,
so that no key, seed, example, or adapter gets into it by mistake.
"""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import psutil

from fedcert import __version__
from fedcert.errors import FedcertError
from fedcert.runs.progress import Observer

__all__ = [
    "EVENTS_FILE",
    "KINDS",
    "Event",
    "EventLog",
    "EventSink",
    "LoggedObserver",
    "NoEvents",
    "logged_run",
    "read_events",
]

EVENTS_FILE = "events.jsonl"
"""Name of the log in a run folder."""

KINDS: Mapping[str, frozenset[str]] = {
    # Runs
    "run-started": frozenset({"command", "version", "host", "pid", "process_started"}),
    "run-ended": frozenset({"status", "cause"}),
    # Progress
    "phase": frozenset({"name", "total"}),
    "progress": frozenset({"name", "done", "total"}),
    "round": frozenset({"number", "total"}),
    "note": frozenset({"text"}),
    # Messages
    "sent": frozenset({"message", "clients", "bytes_down"}),
    "received": frozenset({"message", "client", "bytes_up"}),
    # What came of them
    "upload-accepted": frozenset({"client"}),
    "upload-refused": frozenset({"client", "phase", "cause"}),
    "failure": frozenset({"client", "phase", "cause"}),
    "bundle-published": frozenset({"digest", "version"}),
    "seed-issued": frozenset({"client", "attempt", "commitment"}),
    "certificate-filed": frozenset({"client", "bound", "n"}),
}
"""The fields that each kind of event may have, beside time, run, and kind."""

_LONGEST_TEXT = 1000
_PROGRESS_PAUSE = 1.0  # seconds between two lines about the steps of a phase


class EventSink(Protocol):
    """Something that is told about events."""

    def record(self, kind: str, **fields: str | float | None) -> None:
        """Take one event; kinds and their fields are listed in `KINDS`."""


class NoEvents:
    """A sink that keeps nothing."""

    def record(self, kind: str, **fields: str | float | None) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Event:
    """One line of a log.

    Attributes
    ----------
    time : float
        Seconds since 1970, by the writer's clock.
    run : str
        Id of the run.
    kind : str
        One of `KINDS`, or that of a later version.
    fields : Mapping[str, Any]
        The rest.
    """

    time: float
    run: str
    kind: str
    fields: Mapping[str, Any]


class EventLog:
    """Appends events to a file; several runs and processes may share it.

    Each event is one write to a file opened for appending, so lines of two writers do not
    mix, and an event is with the operating system once `record` returns: it survives the
    death of the process, though not a power cut. What a crash has torn stays a line of its
    own. A log that cannot be written (a full disk) ends no run: the first lost event is
    reported to Python's logging, and events are written again as soon as that is possible.

    Parameters
    ----------
    path : Path
        The file; made with its folder if missing.
    run : str
        Id of the run.

    Attributes
    ----------
    lost : int
        Events that could not be written.
    """

    def __init__(self, path: Path, *, run: str) -> None:
        self.lost = 0
        self.run = run
        self._path = path

    def record(self, kind: str, **fields: str | float | None) -> None:
        """Append one event.

        Raises
        ------
        ValueError
            If the kind is unknown or has no such field.
        """
        if kind not in KINDS or not fields.keys() <= KINDS[kind]:
            raise ValueError(f"there is no event {kind!r} with the fields {sorted(fields)}")
        line = json.dumps(
            {
                "time": _spelled(time.time()),
                "run": self.run,
                "kind": kind,
                **{name: _storable(value) for name, value in fields.items()},
            }
        )
        try:
            self._append(f"{line}\n".encode())
        except OSError as error:
            self.lost += 1
            if self.lost == 1:
                logging.getLogger("fedcert").warning(
                    "the event log %s cannot be written: %s", self._path, error
                )

    def _append(self, line: bytes) -> None:
        # Opened anew each time: a log that is moved away or deleted does not swallow events.
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                line = b"\n" + line  # what a crash or a full disk has torn ends here
            written = os.write(handle, line)
            if written < len(line):
                raise OSError(f"{written} of {len(line)} bytes written")
        finally:
            os.close(handle)


class LoggedObserver:
    """Passes progress on to an observer, and logs it.

    Steps are logged once a second and at the end of a phase, not one by one.

    Parameters
    ----------
    observer : Observer
        Shows the progress.
    events : EventSink
        Gets phases, their progress, and what is said.
    """

    def __init__(self, observer: Observer, events: EventSink) -> None:
        self._observer, self._events = observer, events
        self._phase = ""
        self._total: int | None = None
        self._done = self._logged = 0
        self._last = 0.0

    def start(self, phase: str, total: int | None = None) -> None:
        """Log the phase, and pass it on."""
        self.flush()
        self._phase, self._total, self._done, self._logged = phase, total, 0, 0
        self._last = time.monotonic()
        self._events.record("phase", name=phase, total=total)
        self._observer.start(phase, total)

    def advance(self, steps: int = 1) -> None:
        """Log the steps if the last time was a while ago, and pass them on."""
        self._done += steps
        if time.monotonic() - self._last >= _PROGRESS_PAUSE:
            self.flush()
        self._observer.advance(steps)

    def say(self, text: str) -> None:
        """Log the text, and pass it on."""
        self._events.record("note", text=text)
        self._observer.say(text)

    def flush(self) -> None:
        """Log the steps that are not in the log yet."""
        if self._done > self._logged:
            self._events.record(
                "progress", name=self._phase, done=self._done, total=self._total
            )
            self._logged, self._last = self._done, time.monotonic()


@contextmanager
def logged_run(folder: Path, *, command: str, run: str | None = None) -> Iterator[EventLog]:
    """Log the start of a run, and how it ended.

    Parameters
    ----------
    folder : Path
        The run folder.
    command : str
        What runs, such as ``fedcert simulate``.
    run : str, optional
        Its id; a new one by default.
    """
    process = psutil.Process()
    log = EventLog(folder / EVENTS_FILE, run=run or secrets.token_hex(8))
    log.record(
        "run-started",
        command=command,
        version=__version__,
        host=socket.gethostname(),
        pid=process.pid,
        process_started=process.create_time(),
    )
    try:
        yield log
    except BaseException as error:
        log.record("run-ended", status="failed", cause=_cause(error))
        raise
    log.record("run-ended", status="finished")


def read_events(path: Path, *, run: str | None = None) -> list[Event]:
    """Read a log, maybe while it is written; lines that are no events are skipped.

    Parameters
    ----------
    path : Path
        The file; a missing one has no events.
    run : str, optional
        Only this run's.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    events = (_parsed(line) for line in lines)
    return [e for e in events if e is not None and (run is None or e.run == run)]


def _parsed(line: bytes) -> Event | None:
    try:
        fields = json.loads(line)
        when = datetime.fromisoformat(fields.pop("time")).timestamp()
        run, kind = fields.pop("run"), fields.pop("kind")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if not isinstance(run, str) or not isinstance(kind, str):
        return None
    return Event(when, run, kind, fields)


def _spelled(when: float) -> str:
    moment = datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds")
    return moment.replace("+00:00", "Z")


def _storable(value: str | float | None) -> str | float | None:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return value[:_LONGEST_TEXT]
    return value


def _cause(error: BaseException) -> str:
    """Say in one line why a run ended."""
    text = " ".join(str(error).split())
    if isinstance(error, FedcertError):
        return text
    kind = type(error).__name__
    return f"{kind}: {text}" if text else kind
