"""A run's course for TensorBoard, from its event log: the extra ``fedcert[tensorboard]``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from fedcert.errors import RunError
from fedcert.runs.events import EVENTS_FILE, Event, read_events
from fedcert.runs.status import RUNNING, read_status

__all__ = ["follow", "points"]

_PAUSE = 2.0  # seconds between two looks at the log


def follow(folder: Path, target: Path, *, pause: Callable[[], object] | None = None) -> int:
    """Write the last run of a folder for TensorBoard, until the run ends.

    Every call writes the run from its start, into a folder of its own below `target` that is
    named after the run and the time of the call.

    Parameters
    ----------
    folder : Path
        The run folder.
    target : Path
        What ``tensorboard --logdir`` is given.
    pause : callable, optional
        Waits between two looks at the log.

    Returns
    -------
    int
        Points written.

    Raises
    ------
    RunError
        If TensorBoard is not installed, or there is no run.
    """
    writer_class = _writer_class()
    run = read_status(folder).run
    written = 0
    writer = writer_class(str(target / f"{run}-{time.time_ns()}"))
    try:
        while True:
            # In this order: what is logged before the end is written in the last turn.
            runs = read_status(folder)
            going = runs.run == run and runs.state == RUNNING
            found = list(points(read_events(folder / EVENTS_FILE, run=run)))
            for name, value, step, when in found[written:]:
                writer.add_scalar(name, value, global_step=step, walltime=when)
            written = len(found)
            writer.flush()
            if not going:
                return written
            (pause or _wait)()
    finally:
        writer.close()


def points(events: Iterable[Event]) -> Iterator[tuple[str, float, int, float]]:
    """Turn events into curves.

    Yields
    ------
    tuple
        Name of the curve, value, step (the event's number), and time. A longer log of the
        same run begins with the same points.
    """
    counts: Counter[str] = Counter()
    for step, event in enumerate(events):
        for name, value in _values(event, counts):
            yield name, value, step, event.time


def _values(event: Event, counts: Counter[str]) -> list[tuple[str, float]]:
    counted = {
        "upload-accepted": ("uploads/accepted", 1),
        "upload-refused": ("failures", 1),
        "failure": ("failures", 1),
        "seed-issued": ("seeds", 1),
        "certificate-filed": ("certificates/filed", 1),
        "sent": ("traffic/bytes down", event.fields.get("bytes_down")),
        "received": ("traffic/bytes up", event.fields.get("bytes_up")),
    }
    values: list[tuple[str, float]] = []
    if event.kind in counted:
        name, more = counted[event.kind]
        counts[name] += more if isinstance(more, int) else 0
        values.append((name, counts[name]))
    bound = event.fields.get("bound")
    if event.kind == "certificate-filed" and isinstance(bound, int | float):
        values.append(("certificates/bound", float(bound)))
    done = event.fields.get("done")
    if event.kind == "progress" and isinstance(done, int):
        values.append((f"progress/{event.fields.get('name')}", done))
    return values


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RunError(
            "writing for TensorBoard needs TensorBoard: pip install 'fedcert[tensorboard]'"
        ) from error
    return SummaryWriter


def _wait() -> None:
    time.sleep(_PAUSE)
