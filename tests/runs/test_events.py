"""The event log: whole lines whatever happens, and nothing in it that has no place there."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import socket
from pathlib import Path

import pytest

from fedcert.errors import RunError
from fedcert.runs.events import (
    EVENTS_FILE,
    KINDS,
    Event,
    EventLog,
    Events,
    logged_run,
    read_events,
)
from fedcert.runs.progress import Stopwatch, Viewer


def test_an_event_is_one_line_of_json_with_time_run_and_kind(tmp_path: Path) -> None:
    path = tmp_path / "runs" / EVENTS_FILE
    Events(EventLog(path), run="r1").record(
        "failure", client="a", phase="training", cause="x\ny\u2028z"
    )
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") == 1
    line = json.loads(text)
    assert line["time"].endswith("Z")
    assert {key: line[key] for key in ("run", "kind", "client", "cause")} == {
        "run": "r1",
        "kind": "failure",
        "client": "a",
        "cause": "x\ny\u2028z",
    }


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("seed-issued", {"client": "a", "seed": "00ff"}),
        ("upload-accepted", {"client": "a", "adapter": 1.0}),
        ("nonce", {}),
    ],
)
def test_what_has_no_place_in_the_log_is_refused(
    tmp_path: Path, kind: str, fields: dict[str, str | float]
) -> None:
    log = Events(EventLog(tmp_path / EVENTS_FILE), run="r")
    with pytest.raises(ValueError, match=kind):
        log.record(kind, **fields)
    assert read_events(tmp_path / EVENTS_FILE) == []


def test_a_torn_last_line_is_skipped_and_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / EVENTS_FILE
    log = Events(EventLog(path), run="r")
    log.record("round", number=1)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:25])
    assert [event.fields["number"] for event in read_events(path)] == [1]
    log.record("round", number=2)
    assert [event.fields["number"] for event in read_events(path)] == [1, 2]


@pytest.mark.parametrize("junk", [b"\xff\xfe", b"[]", b"null", b'{"time": 3}', b"{" * 5000])
def test_lines_that_are_no_events_are_skipped(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / EVENTS_FILE
    path.write_bytes(junk + b"\n")
    Events(EventLog(path), run="r").record("round", number=1)
    assert [event.kind for event in read_events(path)] == ["round"]


def test_figures_that_json_cannot_hold_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / EVENTS_FILE
    Events(EventLog(path), run="r").record(
        "certificate-filed", client="a", bound=float("nan"), n=3
    )
    [event] = read_events(path)
    assert event.fields["bound"] is None


def _write(path: Path, run: str, count: int) -> None:
    log = Events(EventLog(path), run=run)
    for number in range(count):
        log.record("note", text=f"{number} " + run * 400)


def test_lines_of_several_processes_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / EVENTS_FILE
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(path, run, 200)) for run in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    # Who looks while another writes may take a line for torn, and puts an empty one after it.
    assert sum(map(bool, path.read_bytes().splitlines())) == 600
    for run in "abc":
        numbers = [int(e.fields["text"].split()[0]) for e in read_events(path, run=run)]
        assert numbers == list(range(200))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_ends_no_run_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / EVENTS_FILE
    path.symlink_to("/dev/full")
    file = EventLog(path)
    log = Events(file, run="r")
    with caplog.at_level(logging.WARNING, logger="fedcert"):
        log.record("round", number=1)
        log.record("round", number=2)
    assert file.lost == 2
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text
    path.unlink()
    log.record("round", number=3)
    assert [event.fields["number"] for event in read_events(path)] == [3]


def test_a_run_says_where_it_runs_and_how_it_ended(tmp_path: Path) -> None:
    with logged_run(tmp_path, command="fedcert simulate") as log:
        log.record("round", number=1)
    start, _, end = read_events(tmp_path / EVENTS_FILE)
    assert (start.kind, start.fields["pid"], start.fields["host"]) == (
        "run-started",
        os.getpid(),
        socket.gethostname(),
    )
    assert (end.kind, end.fields) == ("run-ended", {"status": "finished"})
    assert start.run == end.run


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RunError("too few adapters"), "too few adapters"),
        (KeyError("x"), "KeyError: 'x'"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_a_run_that_fails_logs_why_and_raises(
    tmp_path: Path, error: BaseException, cause: str
) -> None:
    with pytest.raises(type(error)), logged_run(tmp_path, command="c"):
        raise error
    end = read_events(tmp_path / EVENTS_FILE)[-1]
    assert end.fields == {"status": "failed", "cause": cause}


def test_runs_of_one_folder_are_told_apart(tmp_path: Path) -> None:
    for _ in range(2):
        with logged_run(tmp_path, command="c"):
            pass
    events = read_events(tmp_path / EVENTS_FILE)
    assert [event.kind for event in events] == ["run-started", "run-ended"] * 2
    assert len({event.run for event in events}) == 2


def test_progress_is_passed_on_and_logged_in_few_lines(tmp_path: Path) -> None:
    class Counting(Viewer):
        heard = 0

        def on_progress(self, done: int, total: int | None) -> None:
            self.heard += 1

    shown, watch = Counting(), Stopwatch()
    told = Events(EventLog(tmp_path / EVENTS_FILE), shown, watch, run="r")
    told.phase("train", 500)
    for _ in range(500):
        told.advance()
    told.note("careful")
    told.phase("fit")
    watch.stop()
    events = read_events(tmp_path / EVENTS_FILE)
    assert shown.heard == 500
    assert list(watch.seconds) == ["train", "fit"]
    kinds = [event.kind for event in events]
    assert kinds[0] == "phase"
    assert kinds[-3:] == ["progress", "note", "phase"]
    assert events[-3].fields == {"name": "train", "done": 500, "total": 500}
    assert len(events) < 20


def test_every_listener_is_told_the_same_events_in_turn() -> None:
    heard: list[tuple[str, Event]] = []
    events = Events(
        lambda event: heard.append(("first", event)),
        lambda event: heard.append(("second", event)),
        run="r",
    )
    events.phase("train", 2)
    events.advance()
    with pytest.raises(ValueError, match="nonce"):
        events.record("nonce")
    assert [name for name, _ in heard] == ["first", "second"] * 2
    assert [event for name, event in heard if name == "first"] == [
        event for name, event in heard if name == "second"
    ]
    assert heard[-1][1].fields == {"name": "train", "done": 1, "total": 2}


def test_the_documentation_lists_every_kind_and_field() -> None:
    page = Path(__file__).parents[2] / "docs" / "reliability.md"
    lines = page.read_text(encoding="utf-8").splitlines()
    rows = {
        line.split("|")[1].strip(" `"): line.split("|")[2]
        for line in lines
        if line.startswith("| `") and line.count("|") == 3
    }
    listed = {kind: cell for kind, cell in rows.items() if "-" in kind or kind in KINDS}
    assert {kind for kind in listed if " " not in kind} == set(KINDS)
    for kind, fields in KINDS.items():
        missing = [name for name in fields if f"`{name}`" not in rows[kind]]
        assert not missing, kind
