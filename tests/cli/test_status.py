"""``fedcert status``: what it prints, and exit codes that tell the truth."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from simulations.federation import NEW, UPSTREAM

from cli.conftest import Run, tree
from fedcert.errors import RunError
from fedcert.runs.events import EVENTS_FILE, EventLog, Events, logged_run, read_events
from fedcert.runs.tensorboard import follow, points
from fedcert.simulations.simulating import Simulation


def test_a_finished_simulation(run: Run, finished: Simulation) -> None:
    before = tree(finished.output)
    shown = run("status", finished.output)
    assert shown.code == 0
    assert "finished after" in shown.out
    assert f"{UPSTREAM} adapters" in shown.out
    assert tree(finished.output) == before


def test_json_agrees_with_the_run(run: Run, finished: Simulation) -> None:
    status = json.loads(run("status", finished.output, "--json").out)
    assert status["state"] == "finished"
    assert (status["pool"], status["certificates"], status["seeds"]) == (UPSTREAM, NEW, NEW)
    bounds = [client["bound"] for client in finished.results["clients"]]
    assert status["mean_certificate"] == pytest.approx(sum(bounds) / len(bounds))
    assert status["bundle"]["digest"] == finished.results["digests"]["bundle"]
    traffic = finished.results["communication"]
    assert (status["bytes_up"], status["bytes_down"]) == (
        traffic["upload_bytes"],
        traffic["download_bytes"],
    )
    assert status["progress"]["rounds"] == status["progress"]["round"]


def test_nothing_secret_is_in_the_log_of_a_run(finished: Simulation) -> None:
    text = (finished.output / EVENTS_FILE).read_text(encoding="utf-8")
    keys = {key for line in text.splitlines() for key in json.loads(line)}
    assert keys.isdisjoint({"seed", "nonce", "key", "secret", "examples", "labels", "vector"})
    assert len(max(text.splitlines(), key=len)) < 400


def test_a_failed_run_exits_with_1(run: Run, tmp_path: Path) -> None:
    cause = "[red]disk\x1b[2J full[/red]"
    Events(EventLog(tmp_path / EVENTS_FILE), run="7").record(
        "failure", client="a", phase="training", cause=cause
    )
    with pytest.raises(RunError), logged_run(tmp_path, command="flwr run", run="7"):
        raise RunError("too few adapters")
    shown = run("status", tmp_path)
    assert shown.code == 1
    assert "failed" in shown.out
    assert "too few adapters" in shown.out
    assert "[red]disk\N{REPLACEMENT CHARACTER}[2J full[/red]" in " ".join(shown.out.split())
    assert "\x1b[2J" not in shown.out
    assert run("status", tmp_path, "--json").code == 1


def test_a_run_that_somebody_stopped_did_not_fail(run: Run, tmp_path: Path) -> None:
    def stopped() -> None:
        with logged_run(tmp_path, command="simulate", run="7"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    shown = run("status", tmp_path)
    assert "interrupted after" in shown.out
    assert "the same command goes on" in shown.out
    assert "KeyboardInterrupt" not in shown.out
    assert "the run failed, and fedcert status" in run("report", tmp_path).err


def test_a_running_run_exits_with_0(run: Run, tmp_path: Path) -> None:
    with logged_run(tmp_path, command="flwr run") as log:
        log.record("phase", name="train upstream adapters", total=12)
        shown = run("status", tmp_path)
    assert shown.code == 0
    assert "train upstream adapters: 0 of 12" in shown.out
    assert "unknown" in shown.out  # no step is done: there is no pace


def test_a_folder_without_a_run_is_a_mistake(run: Run, tmp_path: Path) -> None:
    shown = run("status", tmp_path)
    assert shown.code == 1
    assert "no event log" in shown.err


def test_without_tensorboard_the_extra_is_named(
    run: Run, finished: Simulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    shown = run("status", finished.output, "--tensorboard", tmp_path / "tb")
    assert shown.code == 1
    assert "pip install 'fedcert[tensorboard]'" in shown.err


def test_the_curves_end_where_the_run_does(finished: Simulation) -> None:
    events = read_events(finished.output / EVENTS_FILE)
    last = {name: value for name, value, _, _ in points(events)}
    assert last["uploads/accepted"] == UPSTREAM
    assert last["certificates/filed"] == NEW
    assert last["traffic/bytes up"] == finished.results["communication"]["upload_bytes"]
    first = list(points(events[:20]))
    assert list(points(events))[: len(first)] == first


def test_tensorboard_gets_the_curves_while_the_run_goes(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs fedcert[tensorboard]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with logged_run(tmp_path / "run", command="c") as log:
        log.record("upload-accepted", client="a")

        def go_on() -> None:
            log.record("upload-accepted", client="b")
            log.record("run-ended", status="finished")

        follow(tmp_path / "run", tmp_path / "tb", pause=go_on)
    [folder] = (tmp_path / "tb").iterdir()
    curve = EventAccumulator(str(folder)).Reload().Scalars("uploads/accepted")
    assert [point.value for point in curve] == [1, 2]


def test_a_log_of_two_runs_at_once_is_read_apart(run: Run, tmp_path: Path) -> None:
    with logged_run(tmp_path, command="one"):
        Events(EventLog(tmp_path / EVENTS_FILE), run="two").record(
            "upload-accepted", client="b"
        )
    assert json.loads(run("status", tmp_path, "--json").out)["runs"] == 2
