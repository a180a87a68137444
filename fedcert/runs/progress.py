"""Showing how far long work has come."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

__all__ = ["Observer", "RichObserver", "Stopwatch"]


class Observer(Protocol):
    """Something that is told about phases of work."""

    def start(self, phase: str, total: int | None = None) -> None:
        """Begin a phase; `total` counts its steps, if known."""

    def advance(self, steps: int = 1) -> None:
        """Report steps of the current phase."""

    def say(self, text: str) -> None:
        """Report something worth a line of its own."""


@dataclass
class Stopwatch:
    """An observer that shows nothing and keeps the wall time of each phase.

    Attributes
    ----------
    seconds : dict
        Wall time by phase, in the order of their starts.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    _current: tuple[str, float] | None = None

    def start(self, phase: str, total: int | None = None) -> None:
        """End the former phase and begin another."""
        self.stop()
        self._current = (phase, time.perf_counter())

    def advance(self, steps: int = 1) -> None:
        """Do nothing."""

    def say(self, text: str) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """End the current phase."""
        if self._current is not None:
            phase, started = self._current
            spent = time.perf_counter() - started
            self.seconds[phase] = self.seconds.get(phase, 0.0) + spent
            self._current = None


class RichObserver(Stopwatch):
    """Progress bars on a terminal, one line per phase elsewhere."""

    def __init__(self, console: Console) -> None:
        super().__init__()
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
    def shown(self) -> Iterator[RichObserver]:
        """Show bars while the block runs, if the console is a terminal."""
        if not self._console.is_terminal:
            yield self
            self.stop()
            return
        with self._progress:
            yield self
            self.stop()

    def start(self, phase: str, total: int | None = None) -> None:
        """Open a bar."""
        super().start(phase, total)
        if self._console.is_terminal:
            self._task = self._progress.add_task(phase, total=total)
        else:
            self.say(f"{phase} ...")

    def advance(self, steps: int = 1) -> None:
        """Move the bar."""
        if self._task is not None:
            self._progress.advance(self._task, steps)

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Fill the bar of the phase that ends."""
        if self._task is not None:
            task = self._progress.tasks[self._task]
            total = task.total if task.total is not None else max(task.completed, 1)
            self._progress.update(self._task, total=total, completed=total)
            self._task = None
        super().stop()
