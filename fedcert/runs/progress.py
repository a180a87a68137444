"""Showing how far long work has come."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from fedcert.runs.events import Event

__all__ = ["ProgressBars", "Stopwatch", "Viewer"]


class Viewer:
    """A listener that shows phases, progress, notes, and the device, each by its own method.

    What it does not override passes by.
    """

    def __call__(self, event: Event) -> None:
        """Hear an event."""
        if event.kind == "phase":
            self.on_phase(event.fields["name"], event.fields.get("total"))
        elif event.kind == "progress":
            self.on_progress(event.fields["done"], event.fields.get("total"))
        elif event.kind == "note":
            self.on_note(event.fields["text"])
        elif event.kind == "device":
            self.on_device(event.fields["device"])

    def on_phase(self, name: str, total: int | None) -> None:
        """Hear that a phase begins; `total` counts its steps, if known."""

    def on_progress(self, done: int, total: int | None) -> None:
        """Hear how many steps of the phase are done."""

    def on_note(self, text: str) -> None:
        """Hear something worth a line of its own."""

    def on_device(self, device: str) -> None:
        """Hear where the server computes."""


class Stopwatch(Viewer):
    """Keeps the wall time of each phase.

    Attributes
    ----------
    seconds : dict
        Wall time by phase, in the order of their starts.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._current: tuple[str, float] | None = None

    def on_phase(self, name: str, total: int | None) -> None:
        """End the former phase and begin another."""
        self.stop()
        self._current = (name, time.perf_counter())

    def stop(self) -> None:
        """End the current phase."""
        if self._current is not None:
            phase, started = self._current
            spent = time.perf_counter() - started
            self.seconds[phase] = self.seconds.get(phase, 0.0) + spent
            self._current = None


class ProgressBars(Viewer):
    """Progress bars on a terminal, one line per phase elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._task: TaskID | None = None

    @contextmanager
    def shown(self) -> Iterator[ProgressBars]:
        """Show bars while the block runs, if the console is a terminal."""
        if not self._console.is_terminal:
            yield self
            self.stop()
            return
        with self._progress:
            yield self
            self.stop()

    def on_phase(self, name: str, total: int | None) -> None:
        """Open a bar."""
        self.stop()
        if self._console.is_terminal:
            self._task = self._progress.add_task(name, total=total)
        else:
            self.on_note(f"{name} ...")

    def on_progress(self, done: int, total: int | None) -> None:
        """Move the bar."""
        if self._task is not None:
            self._progress.update(self._task, completed=done)

    def on_note(self, text: str) -> None:
        """Print a line above the bars."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def on_device(self, device: str) -> None:
        """Print where the server computes."""
        self.on_note(f"computing on {device}")

    def stop(self) -> None:
        """Fill the bar of the phase that ends."""
        if self._task is not None:
            task = self._progress.tasks[self._task]
            total = task.total if task.total is not None else max(task.completed, 1)
            self._progress.update(self._task, total=total, completed=total)
            self._task = None
