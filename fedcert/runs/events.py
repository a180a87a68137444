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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from fedcert import __version__
from fedcert.errors import FedcertError

__all__ = [
    "EVENTS_FILE",
    "KINDS",
    "Event",
    "EventLog",
    "Events",
    "Listener",
    "logged_run",
    "read_events",
]

EVENTS_FILE = "events.jsonl"
"""Name of the log in a run folder."""

KINDS: Mapping[str, frozenset[str]] = {
    # Runs
    "run-started": frozenset({"command", "version", "host", "pid", "process_started"}),
    "run-ended": frozenset({"status", "cause"}),
    "device": frozenset({"device"}),
    # Progress
    "phase": frozenset({"name", "total"}),
    "progress": frozenset({"name", "done", "total"}),
    "round": frozenset({"number", "total"}),
    "note": frozenset({"text"}),
    # Messages
    "sent": frozenset({"message", "clients", "bytes_down", "to"}),
    "received": frozenset({"message", "client", "bytes_up"}),
    # What came of them
    "base-merged": frozenset({"digest", "before"}),
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
_AFTER_PROGRESS = ("phase", "note", "run-ended")


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


Listener = Callable[[Event], object]
"""Is told every event of a run when it happens."""


class Events:
    """The one stream of what happens in a run: whoever listens is told each event.

    Event log, progress bars, stopwatch, and Flower's log are listeners. They are told in
    turn, before the run goes on.

    Parameters
    ----------
    *listeners : callable
        Told about events.
    run : str (default: "")
        Id of the run.
    """

    def __init__(self, *listeners: Listener, run: str = "") -> None:
        self.run = run
        self._listeners = listeners
        self._phase: tuple[str, int | None] = "", None
        self._done = 0

    def record(self, kind: str, **fields: str | float | Sequence[str] | None) -> None:
        """Tell an event.

        Raises
        ------
        ValueError
            If the kind is unknown or has no such field.
        """
        if kind not in KINDS or not fields.keys() <= KINDS[kind]:
            raise ValueError(f"there is no event {kind!r} with the fields {sorted(fields)}")
        event = Event(time.time(), self.run, kind, fields)
        for listener in self._listeners:
            listener(event)

    def phase(self, name: str, total: int | None = None) -> None:
        """Tell that a phase begins; `total` counts its steps, if known."""
        self._phase, self._done = (name, total), 0
        self.record("phase", name=name, total=total)

    def advance(self, steps: int = 1) -> None:
        """Tell that steps of the current phase are done."""
        self.reach(self._done + steps)

    def reach(self, done: int) -> None:
        """Tell how many steps of the current phase are done by now."""
        self._done, (name, total) = done, self._phase
        self.record("progress", name=name, done=done, total=total)

    def note(self, text: str) -> None:
        """Tell something worth a line of its own."""
        self.record("note", text=text)


class EventLog:
    """A listener that appends events to a file; several runs and processes may share it.

    Each event is one write to a file opened for appending, so lines of two writers do not
    mix, and an event is with the operating system once it was told: it survives the
    death of the process, though not a power cut. What a crash has torn stays a line of its
    own. A log that cannot be written (a full disk) ends no run: the first lost event is
    reported to Python's logging, and events are written again as soon as that is possible.

    Progress is written once a second, before a note, and at the end of its phase.

    Parameters
    ----------
    path : Path
        The file; made with its folder if missing.

    Attributes
    ----------
    lost : int
        Events that could not be written.
    """

    def __init__(self, path: Path) -> None:
        self.lost = 0
        self._path = path
        self._waiting: Event | None = None
        self._last = 0.0  # of phase or progress, by the monotonic clock

    def __call__(self, event: Event) -> None:
        """Append one event."""
        if event.kind == "progress":
            self._waiting = event
            if time.monotonic() - self._last >= _PROGRESS_PAUSE:
                self._flush()
            return
        if event.kind in _AFTER_PROGRESS:
            self._flush()
        if event.kind == "phase":
            self._last = time.monotonic()
        self._write(event)

    def _flush(self) -> None:
        event, self._waiting = self._waiting, None
        if event is not None:
            self._last = time.monotonic()
            self._write(event)

    def _write(self, event: Event) -> None:
        line = json.dumps(
            {
                "time": _spelled(event.time),
                "run": event.run,
                "kind": event.kind,
                **{name: _storable(value) for name, value in event.fields.items()},
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


@contextmanager
def logged_run(
    folder: Path, *, command: str, run: str | None = None, listeners: Iterable[Listener] = ()
) -> Iterator[Events]:
    """Tell the start of a run, and how it ended, to its event log and other listeners.

    Parameters
    ----------
    folder : Path
        The run folder.
    command : str
        What runs, such as ``fedcert simulate``.
    run : str, optional
        Its id; a new one by default.
    listeners : iterable of callable
        Called with each event of the run, beside the log in the folder.

    Yields
    ------
    Events
        Takes further events.
    """
    process = psutil.Process()
    log = EventLog(folder / EVENTS_FILE)
    events = Events(log, *listeners, run=run or secrets.token_hex(8))
    events.record(
        "run-started",
        command=command,
        version=__version__,
        host=socket.gethostname(),
        pid=process.pid,
        process_started=process.create_time(),
    )
    try:
        yield events
    except BaseException as error:
        events.record("run-ended", status="failed", cause=_cause(error))
        raise
    events.record("run-ended", status="finished")


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


def _storable(value: Any) -> Any:
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
