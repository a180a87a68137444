"""What is known before work starts is said before, and costs neither labels nor a folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import psutil
import pytest

from fedcert.clients import client_app
from fedcert.errors import DataError, RunError, SettingsError
from fedcert.messages import TRAIN
from fedcert.runs.events import EVENTS_FILE, Events
from fedcert.runs.status import holds_work
from fedcert.scenarios import load_scenario
from fedcert.settings import RunSettings
from fedcert.settings.sections import ServerSettings
from fedcert.simulations.simulating import _check_unlabeled, simulate
from simulations.federation import tiny_settings


@pytest.fixture
def nobody_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*_: object) -> None:
        raise AssertionError("a client was asked to train")

    monkeypatch.setitem(client_app.HANDLERS, TRAIN, train)


@pytest.mark.usefixtures("nobody_trains")
def test_a_federation_that_is_too_small(tmp_path: Path) -> None:
    settings = tiny_settings(scenario__options__upstream=12, server__min_pool=13)
    message = (
        r"setting 'server\.min_pool': 12 upstream clients of the scenario tiny would train, "
        r"and a prior takes 13 adapters; lower it, or let more clients train$"
    )
    with pytest.raises(SettingsError, match=message):
        simulate(settings, output=tmp_path / "run", runner="inprocess")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("nobody_trains")
@pytest.mark.parametrize(
    ("promise", "message"),
    [
        ("sets=2", "an answer set of 2 labels never misses one of 2"),
        ("gain=base", "the base model alone predicts none of these labels"),
        ("reference", "keeps no reference sample"),
    ],
)
def test_promises_that_say_nothing_of_the_task(
    promise: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tiny_scenario

    def none(*_: object, **__: object) -> None:
        raise AssertionError("a base model was made")

    monkeypatch.setattr(tiny_scenario.Tiny, "base_model", none)
    settings = tiny_settings(certificate__promises=promise)
    with pytest.raises(SettingsError, match=rf"certificate\.promises.*({message})"):
        simulate(settings, output=tmp_path / "run", runner="inprocess")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("method", "codes", "told"), [
    ("fedavg-local", None, True), ("fedp2eft", 2, True), ("fedp2eft", 0, False),
])  # fmt: skip
def test_inputs_without_labels_that_no_method_reads(
    method: str, codes: int | None, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks for them should not believe that they had a part."""
    scenario = load_scenario("tiny_scenario:Tiny", {})
    given = scenario.support_examples(scenario.new_clients[0], 9)
    monkeypatch.setattr(type(scenario), "unlabeled_inputs", lambda *_: given)
    options = {} if codes is None else {"averaging__options": {"codes": codes}}
    notes: list[str] = []
    events = Events(lambda event: notes.append(str(event.fields["text"])))
    _check_unlabeled(scenario, tiny_settings(method=method, **options), events)
    assert [f"which the method {method} does not read" in note for note in notes] == [
        True
    ] * told


def test_fewer_than_any_prior_takes(tmp_path: Path) -> None:
    settings = tiny_settings(scenario__options__upstream=7)
    with pytest.raises(SettingsError, match="takes 10 adapters; let more clients train"):
        simulate(settings, output=tmp_path / "run", runner="inprocess")


@pytest.mark.usefixtures("nobody_trains")
def test_too_few_for_any_prior(tmp_path: Path) -> None:
    settings = tiny_settings(scenario__options__upstream=3, server__min_pool=0)
    message = (
        "3 upstream clients of the scenario tiny would train, and a prior takes 4 "
        "adapters; let more clients train, or do without them: fedcert certify bounds "
    )
    with pytest.raises(SettingsError, match=message):
        simulate(settings, output=tmp_path / "run", runner="inprocess")


@pytest.mark.parametrize("upstream", [4, 7])
def test_a_small_federation_takes_the_gaussian(upstream: int, tmp_path: Path) -> None:
    settings = tiny_settings(
        scenario__options__upstream=upstream,
        server__min_pool=0,
        prior__kind="diffusion",
        certificate__recipe="planned",
        planning__sizes="16,32",
    )
    simulation = simulate(settings, output=tmp_path / "run", runner="inprocess")
    assert simulation.summary["new_clients"] == 2
    assert all(row["verified"] for row in simulation.results["clients"])
    prior = simulation.results["prior"]
    assert prior["kind"] == "gaussian"
    assert "since the diffusion prior takes 10" in prior["choice"]
    assert len(simulation.results["plan"]) == (0 if upstream == 4 else 2)


def _table(folder: Path, **options: Any) -> RunSettings:
    rows = [
        {
            "input": f"t {i}",
            "label": "bad" if i % 24 < 7 else "ab"[i // 24 % 2],
            "client": i % 24,
        }
        for i in range(480)
    ]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    chosen = {"source": str(folder / "t.jsonl"), "smallest": 8, "smallest_new": 8, "new": 2}
    return RunSettings.from_mapping(
        {"scenario": {"name": "table", "options": chosen | options}}
    )


def test_clients_of_one_label_are_counted(tmp_path: Path) -> None:
    message = (
        r"min_pool': 16 upstream clients of the scenario table would train, and a prior takes "
        r"20 adapters; .*; table: 7 clients do not train: all their rows have the same label"
    )
    settings = _table(tmp_path, held_out="client=23")
    settings = settings.model_copy(update={"server": ServerSettings(min_pool=20)})
    with pytest.raises(SettingsError, match=message):
        simulate(settings, output=tmp_path / "run", runner="inprocess")


@pytest.mark.usefixtures("nobody_trains")
def test_support_sets_that_nobody_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tiny_scenario

    def none(_self: object, client: str, size: int) -> None:
        raise DataError(f"tiny can give 1 to 64 support examples of {client}, not {size}")

    monkeypatch.setattr(tiny_scenario.Tiny, "support_examples", none)
    with pytest.raises(DataError, match=r"1 to 64 support examples of tiny-14, not 1000"):
        simulate(
            tiny_settings(certificate__support_size=1000),
            output=tmp_path / "run",
            runner="inprocess",
        )


def test_a_support_set_that_one_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tiny_scenario

    whole = tiny_scenario.Tiny.support_examples

    def without_the_first(self: Any, client: str, size: int) -> Any:
        if client == self.new_clients[0]:
            raise ValueError(f"{client} is on leave")
        return whole(self, client, size)

    monkeypatch.setattr(tiny_scenario.Tiny, "support_examples", without_the_first)
    simulation = simulate(tiny_settings(), output=tmp_path / "run", runner="inprocess")
    (row,) = simulation.results["clients"]
    assert row["client"] == tiny_scenario.Tiny().new_clients[1]
    # The other is measured in full.
    assert row["local_bound"] is not None
    assert {each["n"] for each in simulation.results["bound_by_n"]}
    assert simulation.results["local"]["by_n"]


# The folder of a run that failed at its start


def test_a_run_that_failed_at_its_start_does_not_hold_its_folder(tmp_path: Path) -> None:
    output = tmp_path / "run"
    wrong = tiny_settings(certificate__candidates=51)
    _started(output, wrong)
    assert not holds_work(output)
    simulation = simulate(tiny_settings(), output=output, runner="inprocess")
    assert simulation.summary["new_clients"] == 2
    assert RunSettings.read(output / "settings.toml") == tiny_settings()
    # Now it does.
    with pytest.raises(RunError, match="holds a run with other settings"):
        simulate(wrong, output=output, runner="inprocess")


def _started(output: Path, settings: RunSettings) -> None:
    """Leave what a run does that fails once its pool is open."""
    import fedcert.simulations.simulating as module

    def fail(*_: object, **__: object) -> None:
        raise RunError("the network is gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedcert.strategies.registration.Registration.wait", fail)
        with pytest.raises(RunError, match="the network is gone"):
            module.simulate(settings, output=output, runner="inprocess")
    assert (output / "pool").is_dir()


@pytest.mark.parametrize(
    "name", ["bundle", "bundles", "clients", "certificates", "results.json", "pool/adapters/a"]
)
def test_what_somebody_made_is_kept(name: str, tmp_path: Path) -> None:
    output = tmp_path / "run"
    _started(output, tiny_settings(seed=1))
    (output / name).mkdir(parents=True)
    with pytest.raises(RunError, match="holds a run with other settings"):
        simulate(tiny_settings(), output=output, runner="inprocess")
    assert (output / name).exists()
    assert RunSettings.read(output / "settings.toml") == tiny_settings(seed=1)


def test_a_run_that_has_just_begun_keeps_its_folder(tmp_path: Path) -> None:
    output, process = tmp_path / "run", psutil.Process()
    output.mkdir()
    (output / "settings.toml").write_text(tiny_settings(seed=1).to_toml())
    started = {
        "time": "2026-01-01T00:00:00.000Z",
        "run": "a",
        "kind": "run-started",
        "host": os.uname().nodename,
        "pid": process.pid,
        "process_started": process.create_time(),
    }
    (output / EVENTS_FILE).write_text(json.dumps(started) + "\n")
    with pytest.raises(RunError, match="holds a run with other settings"):
        simulate(tiny_settings(), output=output, runner="inprocess")
