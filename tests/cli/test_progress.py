"""Progress on a terminal, and in a log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fedcert.runs.events import Events
from fedcert.runs.progress import ProgressBars, Stopwatch


def _work(bars: ProgressBars) -> None:
    events = Events(bars)
    with bars.shown():
        events.phase("train", 3)
        events.advance()
        events.advance(2)
        events.note("[bold]careful[/bold] " + "x" * 100)
        events.phase("fit")
        events.phase("train", 1)


def test_a_terminal_gets_bars() -> None:
    text = io.StringIO()
    _work(ProgressBars(Console(file=text, force_terminal=True, width=90)))
    shown = text.getvalue()
    assert "3/3" in shown
    assert "[bold]careful[/bold] " + "x" * 100 in shown


def test_a_log_gets_a_line_for_each_phase() -> None:
    text = io.StringIO()
    _work(ProgressBars(Console(file=text)))
    expected = ["train ...", "[bold]careful[/bold] " + "x" * 100, "fit ...", "train ..."]
    assert text.getvalue().splitlines() == expected


def test_a_stopwatch_adds_up_phases_of_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 1.0, 3.0, 3.0, 7.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    watch = Stopwatch()
    events = Events(watch)
    for phase in ("a", "b", "a"):
        events.phase(phase)
    watch.stop()
    watch.stop()
    assert watch.seconds == {"a": 5.0, "b": 2.0}
