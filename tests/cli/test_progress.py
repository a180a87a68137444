"""Progress on a terminal, and in a log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fedcert.runs.progress import RichObserver, Stopwatch


def _work(observer: RichObserver) -> None:
    with observer.shown():
        observer.start("train", 3)
        observer.advance()
        observer.advance(2)
        observer.say("[bold]careful[/bold] " + "x" * 100)
        observer.start("fit")
        observer.start("train", 1)


def test_a_terminal_gets_bars() -> None:
    text = io.StringIO()
    observer = RichObserver(Console(file=text, force_terminal=True, width=90))
    _work(observer)
    shown = text.getvalue()
    assert "3/3" in shown
    assert "[bold]careful[/bold] " + "x" * 100 in shown
    assert list(observer.seconds) == ["train", "fit"]


def test_a_log_gets_a_line_for_each_phase() -> None:
    text = io.StringIO()
    _work(RichObserver(Console(file=text)))
    expected = ["train ...", "[bold]careful[/bold] " + "x" * 100, "fit ...", "train ..."]
    assert text.getvalue().splitlines() == expected


def test_a_stopwatch_adds_up_phases_of_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 1.0, 3.0, 3.0, 7.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    watch = Stopwatch()
    for phase in ("a", "b", "a"):
        watch.start(phase)
    watch.stop()
    watch.stop()
    assert watch.seconds == {"a": 5.0, "b": 2.0}
