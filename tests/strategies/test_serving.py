"""One run of the server from settings to certificates, and runs that cannot do their job."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NoReturn

import pytest
from flwr.app import Context, Error, Message, RecordDict
from simulations.federation import CLIENTS, NEW, UPSTREAM, Federation, tiny_settings

from fedcert.bundles import Bundle
from fedcert.certificates import Certificate
from fedcert.cli.status import _phase
from fedcert.errors import PriorError, RunError, SettingsError
from fedcert.messages import CERTIFY, TRAIN
from fedcert.runs.events import EVENTS_FILE, Events, logged_run, read_events
from fedcert.runs.progress import Viewer
from fedcert.runs.status import _waiting, read_status
from fedcert.simulations.runners.flower_internals import LocalGrid
from fedcert.strategies.pooled_prior import PooledPrior
from fedcert.strategies.reporting import results_of
from fedcert.strategies.server_app import app
from fedcert.strategies.serving import serve

REPLAY = (
    "WARNING: the pool prior does not pass its audits: its samples lie at 0.00 times the "
    "distance of held-out adapters from the pool "
)


def _no_disk(_message: Message) -> NoReturn:
    raise OSError(28, "No space left on device")


def _gone(message: Message) -> Message:
    return Message(Error(5, "node unavailable"), reply_to=message)


def test_a_run_leaves_pool_bundle_and_certificates(
    federation: Federation, undisturbed: PooledPrior
) -> None:
    outcome = federation.serve()
    assert undisturbed.bundle is not None
    saved = Bundle.load(federation.output / "bundle")
    assert saved.prior.digest == undisturbed.bundle.prior.digest
    assert outcome.strategy.bundle is not None
    assert saved.digest == outcome.strategy.bundle.digest
    assert outcome.fitted.prior.digest == saved.prior.digest
    assert len(outcome.fitted.fitted_on) + len(outcome.fitted.held_out) == UPSTREAM
    written = {
        path.stem: Certificate.read(path)
        for path in (federation.output / "certificates").iterdir()
    }
    assert written == outcome.strategy.certificates
    assert written.keys() == undisturbed.certificates.keys()


def test_progress_is_told_reply_by_reply(tmp_path: Path) -> None:
    told: list[str] = []

    class Recorder(Viewer):
        def on_phase(self, name: str, total: int | None) -> None:
            told.append(f"{name}: {total}")

        def on_progress(self, done: int, total: int | None) -> None:
            told[-1] += "."

    federation = Federation(tmp_path / "run")
    federation.on(TRAIN, CLIENTS[2], _gone)
    events = Events(Recorder())
    serve(federation.grid, federation.settings, output=federation.output, events=events)
    assert told == [
        "call the roll: None",
        f"train upstream adapters: {UPSTREAM}" + "." * UPSTREAM,
        "fit the prior: None",
        f"certify new clients: {NEW}" + "." * NEW,
    ]


def test_too_small_a_pool_names_every_cause_once(federation: Federation) -> None:
    for client in CLIENTS[:3]:
        federation.on(TRAIN, client, _no_disk)
    for client in CLIENTS[3:6]:
        federation.on(TRAIN, client, _gone)
    expected = (
        "fewer than 10 adapters came in, too few for a prior: 3 x training "
        f"({', '.join(CLIENTS[:3])}): OSError(28, 'No space left on device'); "
        f"3 x training ({', '.join(CLIENTS[3:6])}): node unavailable"
    )
    with pytest.raises(RunError, match=f"^{re.escape(expected)}$"):
        federation.serve()
    assert not (federation.output / "bundle").exists()
    assert len(federation.pool()) == 8
    # The next run asks only those that are missing.
    again = Federation(federation.output)
    again.serve()
    assert again.clients.count()[TRAIN] == 6


def test_too_few_clients_for_a_prior_are_told_before_anybody_trains(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "run", tiny_settings(server__min_pool=UPSTREAM + 1))
    message = (
        rf"^setting 'server\.min_pool': {UPSTREAM} clients train, or are in the pool, and a "
        rf"prior takes {UPSTREAM + 1} adapters; start more upstream nodes, or lower it$"
    )
    with pytest.raises(RunError, match=message):
        federation.serve()
    assert federation.clients.count()[TRAIN] == 0


def test_a_run_that_waits_for_so_many_nodes_gathers_adapters_for_later_ones(
    tmp_path: Path,
) -> None:
    nodes = UPSTREAM + NEW
    settings = tiny_settings(server__min_pool=UPSTREAM + 1, server__nodes=nodes)
    federation = Federation(tmp_path / "run", settings)
    with logged_run(federation.output, command="serve") as events:  # noqa: SIM117
        with pytest.raises(RunError, match=r"^fewer than 15 adapters came in"):
            serve(federation.grid, settings, output=federation.output, events=events)
    (note,) = [e for e in read_events(federation.output / EVENTS_FILE) if e.kind == "note"]
    assert "this run can only add to the pool: setting 'server.min_pool'" in note.fields["text"]
    assert len(federation.pool()) == UPSTREAM


def test_a_pool_just_large_enough_is_fitted(tmp_path: Path) -> None:
    # The audit holds some adapters back: the fit itself gets fewer than the pool has.
    settings = tiny_settings(prior__kind="diffusion", server__min_pool=11)
    federation = Federation(tmp_path / "run", settings)
    for client in CLIENTS[: UPSTREAM - settings.server.min_pool]:
        federation.on(TRAIN, client, _gone)
    outcome = federation.serve()
    assert len(federation.pool()) == settings.server.min_pool
    assert len(outcome.strategy.certificates) == NEW


def test_no_new_client_is_certified(federation: Federation) -> None:
    federation.on(CERTIFY, CLIENTS[-1], _no_disk)
    federation.on(CERTIFY, CLIENTS[-2], _no_disk)
    cause = "no new client was certified: 2 x certification .*: OSError.28, 'No space left"
    with pytest.raises(RunError, match=cause):
        federation.serve()
    assert (federation.output / "bundle").is_dir()


def test_some_new_clients_are_certified(federation: Federation) -> None:
    federation.on(CERTIFY, CLIENTS[-1], _no_disk)
    outcome = federation.serve()
    assert sorted(outcome.strategy.certificates) == [CLIENTS[UPSTREAM]]
    assert [f.client for f in outcome.strategy.failures] == [CLIENTS[-1]]


def test_a_prior_that_replays_its_pool_can_be_an_error(tmp_path: Path) -> None:
    strict = {"prior__kind": "pool", "prior__on_memorization": "fail"}
    federation = Federation(tmp_path / "run", tiny_settings(**strict))
    with pytest.raises(PriorError, match=r"the pool prior does not pass .* may replay clients"):
        federation.serve()
    assert not (federation.output / "bundle").exists()
    assert len(federation.pool()) == UPSTREAM


def test_a_prior_that_replays_its_pool_is_loud(tmp_path: Path) -> None:
    said: list[str] = []

    class Listener(Viewer):
        def on_note(self, text: str) -> None:
            said.append(text)

    settings = tiny_settings(prior__kind="pool", prior__on_memorization="warn")
    federation = Federation(tmp_path / "run", settings)
    outcome = serve(
        federation.grid, settings, output=federation.output, events=Events(Listener())
    )
    assert len(said) == 1
    assert said[0].startswith(REPLAY)
    assert outcome.strategy.bundle is not None
    assert outcome.strategy.bundle.notes["nearest_pool_passed"] is False


def test_it_gives_up_when_no_node_registers(tmp_path: Path) -> None:
    settings = tiny_settings(server__registration_timeout=0.3)
    federation = Federation(tmp_path / "run", settings, nodes=0)
    with pytest.raises(RunError, match=r"^no node registered within 0\.3 s$"):
        federation.serve()


def test_too_few_nodes_for_a_pool_end_the_run_before_any_work(tmp_path: Path) -> None:
    settings = tiny_settings(server__registration_timeout=0.3)
    federation = Federation(tmp_path / "run", settings, nodes=2)
    expected = (
        f"2 of {UPSTREAM + NEW} clients are there, and 0 adapters in the pool: too few for the "
        "10 that a prior needs. Set num-supernodes in a simulation (flwr run ... "
        f"--federation-config 'num-supernodes={UPSTREAM + NEW}')"
    )
    with pytest.raises(RunError, match=f"^{re.escape(expected)}"):
        federation.serve()
    assert federation.clients.asked == []


def test_while_nodes_are_missing_the_status_says_how_many(tmp_path: Path) -> None:
    settings = tiny_settings(server__nodes=3, server__registration_timeout=0.3)
    federation = Federation(tmp_path / "run", settings, nodes=2)
    seen: list[str] = []

    class Watcher(Viewer):
        def on_note(self, text: str) -> None:
            seen.append(f"{_phase(read_status(federation.output).progress)} {text}")

    run = logged_run(federation.output, command="x", listeners=[Watcher()])
    with run as events, pytest.raises(RunError):
        serve(federation.grid, settings, output=federation.output, events=events)
    assert any(
        line.startswith("wait for nodes: 2 of 3 (for 0 s) WARNING: 2 of 3 nodes are there")
        for line in seen
    )


def test_it_begins_with_the_nodes_that_are_there_when_time_is_up(tmp_path: Path) -> None:
    settings = tiny_settings(server__registration_timeout=0.3)
    federation = Federation(tmp_path / "run", settings, nodes=UPSTREAM + 1)
    outcome = federation.serve()
    assert sorted(outcome.strategy.certificates) == [CLIENTS[UPSTREAM]]


def test_it_begins_at_once_with_as_many_nodes_as_the_settings_want(tmp_path: Path) -> None:
    settings = tiny_settings(server__nodes=UPSTREAM + 1, server__registration_timeout=600.0)
    federation = Federation(tmp_path / "run", settings, nodes=UPSTREAM + 1)
    assert len(federation.serve().strategy.certificates) == 1


def test_it_waits_for_nodes_that_come_late(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "run")
    seen: list[int] = []

    def some() -> list[int]:
        seen.append(len(seen))
        return list(LocalGrid.get_node_ids(federation.grid))[: 8 * len(seen)]

    federation.grid.get_node_ids = some  # type: ignore[method-assign]
    assert len(federation.serve().strategy.certificates) == NEW
    assert len(seen) >= 2


# The ServerApp, as `flwr run` calls it


CONFIG: dict[str, str | int] = {
    "scenario.name": "tiny_scenario:Tiny",
    "adapter.rank": 2,
    "training.steps": 10,
    "prior.kind": "gaussian",
    "certificate.candidates": 50,
    "certificate.support-size": 32,
    "server.min-pool": 10,
}


def _run_app(federation: Federation, **config: str | int | float | bool) -> None:
    app(federation.grid, Context(1, 1, {}, RecordDict(), config))


def test_the_server_app_takes_its_settings_from_the_run_config(
    federation: Federation, undisturbed: PooledPrior
) -> None:
    _run_app(federation, **CONFIG, output=str(federation.output))
    assert undisturbed.bundle is not None
    saved = Bundle.load(federation.output / "bundle")
    assert saved.prior.digest == undisturbed.bundle.prior.digest


def test_the_server_app_ends_with_what_a_simulation_ends_with(
    federation: Federation,
) -> None:
    output = federation.output
    _run_app(federation, **CONFIG, output=str(output))
    assert read_status(output).state == "finished"
    results = json.loads((output / "results.json").read_text())
    assert [row["verified"] for row in results["clients"]] == [True, True]
    assert {"served", "union"} <= {row["recipe"] for row in results["bound_by_n"]}
    assert results["local"]["by_n"][-1]["n"] == results["clients"][0]["n"]
    assert sum(results["data"]["labels"]["new clients"].values()) == NEW * 32
    page = (output / "report.html").read_text()
    for row in results["clients"]:
        assert (output / row["page"]).is_file()
        assert f'href="{row["page"]}"' in page
    assert (output / "base-model" / "config.json").is_file()
    assert json.loads((output / "summary.json").read_text())["new_clients"] == NEW


def test_nodes_with_data_of_their_own_are_not_measured_on_the_scenarios(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = federation.serve()
    monkeypatch.setattr(type(outcome.scenario), "new_clients", ())
    results = results_of(
        outcome,
        federation.settings,
        output=federation.output,
        events=Events(),
        command="flwr run",
    )
    assert len(results["clients"]) == NEW
    assert results["bound_by_n"] == results["profiles"] == []
    assert "data" not in results


def test_whoever_is_asked_is_named_in_the_log(federation: Federation) -> None:
    _run_app(federation, **CONFIG, output=str(federation.output))
    events = read_events(federation.output / EVENTS_FILE)
    asked = {
        event.fields["message"]: event.fields["to"] for event in events if event.kind == "sent"
    }
    assert asked["train.adapter"] == CLIENTS[:UPSTREAM]
    assert all(name.startswith("node ") for name in asked["query.hello"])
    assert _waiting(events) == []


def test_the_server_app_logs_failures_once_and_warnings(
    federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="flwr")
    for client in CLIENTS[:2]:
        federation.on(TRAIN, client, _gone)
    federation.on(CERTIFY, CLIENTS[-1], _no_disk)
    config = CONFIG | {"prior.kind": "pool", "prior.on-memorization": "warn"}
    _run_app(federation, **config, output=str(federation.output))
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 2
    remedy = "gather more adapters or choose another prior"
    assert warnings[0] == f"{REPLAY}(limit 0.5), so it may replay clients' adapters; {remedy}"
    assert warnings[1] == (
        f"3 clients failed: 2 x training ({CLIENTS[0]}, {CLIENTS[1]}): node unavailable; "
        f"1 x certification ({CLIENTS[-1]}): OSError(28, 'No space left on device')"
    )
    assert "fit the prior ..." in caplog.messages


@pytest.mark.parametrize("output", ["", "run", "./run", "~/run"])
def test_the_server_app_refuses_a_relative_output(federation: Federation, output: str) -> None:
    with pytest.raises(SettingsError, match=r"is not an absolute path; give one with flwr run"):
        _run_app(federation, output=output)


def test_the_server_app_refuses_unknown_settings(federation: Federation) -> None:
    with pytest.raises(SettingsError, match="'trainig': there is no such setting"):
        _run_app(federation, **{"output": "/tmp/run", "trainig.steps": 3})
