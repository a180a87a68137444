"""How a run is doing: alive, finished, failed, or dead, and how long it will take."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from fedcert.errors import RunError
from fedcert.runs.events import EVENTS_FILE, logged_run
from fedcert.runs.status import read_status


def _log(folder: Path, *events: dict[str, Any], run: str = "r") -> None:
    """Write events; their times count from now, in seconds."""
    with (folder / EVENTS_FILE).open("a", encoding="utf-8") as file:
        for event in events:
            when = datetime.fromtimestamp(time.time() + event.get("at", -60.0), UTC).isoformat()
            fields = {key: value for key, value in event.items() if key != "at"}
            file.write(json.dumps({"time": when, "run": run, **fields}) + "\n")


def _start(**fields: Any) -> dict[str, Any]:
    here = psutil.Process()
    return {
        "at": -100.0,
        "kind": "run-started",
        "command": "fedcert simulate",
        "host": socket.gethostname(),
        "pid": here.pid,
        "process_started": here.create_time(),
        **fields,
    }


def test_a_folder_without_a_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no event log \(events.jsonl\)"):
        read_status(tmp_path)
    (tmp_path / EVENTS_FILE).write_text("{torn")
    with pytest.raises(RunError, match="no event log"):
        read_status(tmp_path)


def test_before_the_first_phase_the_time_counts_from_the_start(tmp_path: Path) -> None:
    _log(tmp_path, _start())
    progress = read_status(tmp_path).progress
    assert (progress.phase, progress.done) == ("starting", 0)
    assert progress.seconds == pytest.approx(100, abs=5)


def test_a_run_that_goes_on(tmp_path: Path) -> None:
    _log(tmp_path, _start(), {"kind": "phase", "name": "train", "total": 40})
    status = read_status(tmp_path)
    assert (status.state, status.well) == ("running", True)
    assert status.progress.phase == "train"
    assert status.progress.seconds_left is None  # nothing tells its pace yet
    assert status.seconds == pytest.approx(100, abs=5)
    assert status.silent_seconds == pytest.approx(60, abs=5)


def test_the_time_left_follows_the_pace_of_the_phase(tmp_path: Path) -> None:
    _log(
        tmp_path,
        _start(),
        {"at": -80.0, "kind": "phase", "name": "train", "total": 40},
        {"at": -60.0, "kind": "progress", "name": "train", "done": 5, "total": 40},
        {"at": 0.0, "kind": "progress", "name": "train", "done": 20, "total": 40},
        {"at": 0.0, "kind": "round", "number": 1, "total": 3},
    )
    progress = read_status(tmp_path).progress
    assert (progress.done, progress.total) == (20, 40)
    assert (progress.round, progress.rounds) == (1, 3)
    assert progress.seconds_left == pytest.approx(80, abs=5)


def test_steps_of_an_earlier_phase_do_not_count(tmp_path: Path) -> None:
    _log(
        tmp_path,
        _start(),
        {"at": -80.0, "kind": "phase", "name": "plan", "total": 2},
        {"at": -60.0, "kind": "progress", "name": "plan", "done": 2, "total": 2},
        {"at": -50.0, "kind": "phase", "name": "fit the prior", "total": None},
    )
    progress = read_status(tmp_path).progress
    assert (progress.phase, progress.done, progress.total) == ("fit the prior", 0, None)
    assert progress.seconds_left is None


def test_a_clock_that_was_set_back_gives_no_time_left(tmp_path: Path) -> None:
    _log(
        tmp_path,
        _start(),
        {"at": 4000.0, "kind": "phase", "name": "train", "total": 40},
        {"at": -20.0, "kind": "progress", "name": "train", "done": 5, "total": 40},
    )
    progress = read_status(tmp_path).progress
    assert (progress.done, progress.seconds, progress.seconds_left) == (5, 0.0, None)


def test_a_run_whose_process_was_killed_has_died(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path\n"
        "from fedcert.runs.events import logged_run\n"
        "with logged_run(Path(sys.argv[1]), command='c') as log:\n"
        "    log.record('phase', name='train', total=3); print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert read_status(tmp_path).state == "running"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    status = read_status(tmp_path)
    assert (status.state, status.well) == ("died", False)
    assert status.progress.phase == "train"


def test_another_process_with_the_same_number_is_not_the_run(tmp_path: Path) -> None:
    _log(tmp_path, _start(process_started=psutil.Process().create_time() - 1000))
    assert read_status(tmp_path).state == "died"


def test_a_run_on_another_machine_is_unknown_once_it_is_silent(tmp_path: Path) -> None:
    _log(tmp_path, _start(host="elsewhere", pid=1), {"kind": "round", "number": 1})
    assert read_status(tmp_path).state == "running"
    other = tmp_path / "silent"
    other.mkdir()
    _log(other, _start(host="elsewhere", pid=1, at=-4000.0))
    status = read_status(other)
    assert (status.state, status.well) == ("unknown", False)


def test_a_failed_run_keeps_its_cause(tmp_path: Path) -> None:
    with pytest.raises(RunError), logged_run(tmp_path, command="c"):
        raise RunError("fewer than 20 adapters came in")
    status = read_status(tmp_path)
    assert (status.state, status.cause, status.well) == (
        "failed",
        "fewer than 20 adapters came in",
        False,
    )


def test_the_last_run_counts_and_a_failure_before_it_does_not(tmp_path: Path) -> None:
    failure = {"kind": "failure", "client": "a", "phase": "training", "cause": "x"}
    _log(tmp_path, _start(), failure, {"kind": "run-ended", "status": "failed"}, run="one")
    _log(tmp_path, _start(), {"kind": "run-ended", "status": "finished"}, run="two")
    status = read_status(tmp_path)
    assert (status.run, status.runs, status.state) == ("two", 2, "finished")
    assert status.failures == []


def test_counts_come_from_the_log(tmp_path: Path) -> None:
    _log(
        tmp_path,
        _start(),
        {"kind": "sent", "message": "train.adapter", "clients": 3, "bytes_down": 300},
        *(
            {"kind": "upload-refused", "client": c, "phase": "training", "cause": f"{c}: NaN"}
            for c in ("site-1", "site-2")
        ),
        {"kind": "failure", "client": "site-3", "phase": "training", "cause": "disk full"},
        {"kind": "received", "message": "train.adapter", "client": "a", "bytes_up": 7},
        {"kind": "seed-issued", "client": "n1", "attempt": 1, "commitment": "00"},
        {"kind": "certificate-filed", "client": "n1", "bound": 0.2, "n": 64},
        {"kind": "certificate-filed", "client": "n2", "bound": 0.4, "n": 64},
        {"kind": "bundle-published", "digest": "d1", "version": 3},
        {"kind": "something-of-a-later-version", "client": "a"},
    )
    status = read_status(tmp_path)
    assert (status.bytes_down, status.bytes_up, status.seeds) == (300, 7, 1)
    assert status.mean_certificate == pytest.approx(0.3)
    assert status.bundle == {"digest": "d1", "version": 3}
    assert status.failures == [
        {"phase": "training", "cause": "…: NaN", "clients": 2, "named": ["site-1", "site-2"]},
        {"phase": "training", "cause": "disk full", "clients": 1, "named": ["site-3"]},
    ]


def test_who_was_asked_and_has_not_answered_is_named(tmp_path: Path) -> None:
    asked = {"kind": "sent", "message": "train.adapter", "clients": 3, "to": ["a", "b", "c"]}
    _log(
        tmp_path,
        _start(),
        asked,
        {"kind": "received", "message": "train.adapter", "client": "b", "bytes_up": 7},
        {"kind": "failure", "client": "c", "phase": "training", "cause": "disk full"},
        {"kind": "sent", "message": "of an earlier version", "clients": 1},
    )
    assert read_status(tmp_path).waiting == ["a"]
    _log(tmp_path, {"kind": "run-ended", "status": "finished"})
    assert read_status(tmp_path).waiting == []


def test_a_damaged_pool_index_is_no_reason_to_fail(tmp_path: Path) -> None:
    _log(tmp_path, _start())
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "pool.sqlite").write_bytes(b"not a database")
    assert read_status(tmp_path).pool == 0
