"""`simulate` in this process: what it leaves behind, and how it goes on after a crash."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from flwr.app import Message, RecordDict

from fedcert.bundles import Bundle
from fedcert.certificates import Certificate, verify_record
from fedcert.clients import client_app
from fedcert.clients.node import Node
from fedcert.errors import DataError, RunError, SettingsError
from fedcert.messages import CERTIFY, TRAIN
from fedcert.reports import render_report
from fedcert.reports.results import read_results
from fedcert.runs.progress import Viewer
from fedcert.scenarios import load_scenario
from fedcert.settings import RunSettings
from fedcert.simulations.runners import RUNNERS
from fedcert.simulations.simulating import Simulation, simulate
from fedcert.verification import check_adapter, check_bundle, check_data, verify
from simulations.federation import CLIENTS, NEW, UPSTREAM, tiny_settings

NEW_CLIENTS = CLIENTS[UPSTREAM:]
Handler = Callable[[Message, Node], RecordDict]


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _settings_of(run: Path) -> RunSettings:
    return RunSettings.read(run / "settings.toml")


def _certificates(run: Path) -> dict[str, bytes]:
    return {
        folder.name: (folder / "certificate.json").read_bytes()
        for folder in (run / "clients").iterdir()
        if folder.name in NEW_CLIENTS  # upstream clients keep a ledger of spent examples
    }


def test_the_run_folder_holds_what_the_documentation_says(finished: Simulation) -> None:
    assert {path.name for path in finished.output.iterdir()} == {
        "base-model",
        "bundle",
        "bundles",
        "certificates",
        "clients",
        "events.jsonl",
        "protocol",
        "witnesses",
        "pool",
        "report.html",
        "results.json",
        "settings.toml",
        "summary.json",
    }
    assert {path.name for path in (finished.output / "clients").iterdir()} == {*CLIENTS}


def test_the_results_are_the_file_and_the_report_takes_them(finished: Simulation) -> None:
    results = _read(finished.output / "results.json")
    assert results == finished.results
    checked = read_results(results)
    assert checked.scenario == "tiny"
    assert [client.client for client in checked.clients] == NEW_CLIENTS
    assert all(client.verified for client in checked.clients)
    assert checked.failures == ()
    page = (finished.output / "report.html").read_text(encoding="utf-8")
    assert page == render_report(results)


def test_the_results_hold_every_section(finished: Simulation) -> None:
    results = finished.results
    assert {(row["recipe"], row["n"]) for row in results["bound_by_n"]} == {
        (recipe, n) for recipe in ("served", "union", "split", "steel") for n in (8, 16, 32)
    }
    assert results["prior"]["kind"] == "diffusion"
    assert results["prior"]["pool_size"] == UPSTREAM
    assert len(results["prior"]["projection"]["samples"]) == 200
    kinds = {curve["prior"] for curve in results["profiles"]}
    assert kinds == {"diffusion", "gaussian", "jitter", "pool"}
    sent = results["communication"]
    assert sent["upload_bytes"] > UPSTREAM * 4 * 42
    assert sent["download_bytes"] > NEW * sent["download_bytes_per_new_client"] > 0
    assert results["digests"]["bundle"] == Bundle.load(finished.output / "bundle").digest
    assert (
        len({phase["phase"] for phase in results["timings"]}) == len(results["timings"]) == 10
    )
    assert results["peak_rss_mib"] > 100
    for row in results["clients"]:
        certificate = Certificate.read(finished.output / row["certificate"])
        assert (row["bound"], row["errors"]) == (certificate.bound, certificate.errors)
        assert 0 <= row["test_error"] <= row["bound"]
        wrong, every = zip(*row["errors_by_label"].values(), strict=True)
        assert (sum(wrong), sum(every)) == (certificate.errors, certificate.certified_on)
        page = (finished.output / row["page"]).read_text(encoding="utf-8")
        assert "errors by label" in page


def test_the_summary_has_the_figures_that_are_compared_over_time(finished: Simulation) -> None:
    summary = _read(finished.output / "summary.json")
    assert summary == finished.summary
    assert list(summary) == [
        "new_clients",
        "mean_certificate",
        "mean_test_error",
        "mean_error_elsewhere",
        "local_certificate",
        "local_test_error",
        "best_of_1000",
        "seconds",
        "peak_rss_mib",
    ]
    assert summary["new_clients"] == NEW
    assert 0 < summary["local_test_error"] < summary["local_certificate"] <= 1
    assert set(summary["best_of_1000"]) == {"diffusion", "gaussian", "jitter", "pool"}
    assert all(0 <= risk < 0.5 for risk in summary["best_of_1000"].values())
    assert 0 <= summary["mean_test_error"] < summary["mean_certificate"] < 0.5


def test_the_settings_file_repeats_the_run(finished: Simulation) -> None:
    settings = _settings_of(finished.output)
    assert settings.to_toml() == (finished.output / "settings.toml").read_text()
    expected = {
        "prior__kind": "diffusion",
        "server__min_pool": 11,
        "evaluation__baselines": True,
    }
    assert settings == tiny_settings(**expected, evaluation__candidates=1000)


@pytest.mark.parametrize("client", NEW_CLIENTS)
def test_every_certificate_verifies_against_bundle_adapter_and_data(
    finished: Simulation, client: str
) -> None:
    folder = finished.output / "clients" / client
    certificate = Certificate.read(folder / "certificate.json")
    bundle = Bundle.load(finished.output / "bundle")
    base = bundle.load_base(str(finished.output / "base-model"))
    examples = load_scenario("tiny_scenario:Tiny", {}).support_examples(client, 32)
    report = verify_record(certificate).extended(
        [
            *check_bundle(certificate, bundle),
            *check_adapter(certificate, bundle, folder / "adapter"),
            *check_data(certificate, bundle, base, folder / "adapter", examples).checks,
        ]
    )
    assert report.passed, report.failures
    server = Certificate.read(finished.output / "certificates" / f"{client}.json")
    assert server == certificate


def _unmeasured(finished: Simulation) -> RunSettings:
    """Return the settings of the same run without what it only measures."""
    return RunSettings.read(finished.output / "settings.toml", ["evaluation.baselines=false"])


def test_the_same_seed_gives_the_same_certificates_in_another_folder(
    finished: Simulation, tmp_path: Path
) -> None:
    again = simulate(_unmeasured(finished), output=tmp_path / "again", runner="inprocess")
    assert _certificates(again.output) == _certificates(finished.output)
    for section in ("digests", "bound_by_n", "prior", "communication", "statement"):
        assert again.results[section] == finished.results[section]


def test_another_seed_gives_other_certificates(finished: Simulation, tmp_path: Path) -> None:
    other = tiny_settings(seed=1)
    run = simulate(other, output=tmp_path / "run", runner="inprocess")
    assert run.results["digests"]["bundle"] != finished.results["digests"]["bundle"]
    assert run.results["profiles"] == []
    assert run.summary["best_of_1000"] == {}
    for client, text in _certificates(run.output).items():
        assert text != _certificates(finished.output)[client]


def test_a_finished_run_is_measured_again_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(_message: Message, _node: Node) -> RecordDict:
        raise AssertionError("nobody should train")

    settings = tiny_settings()
    first = simulate(settings, output=tmp_path / "run", runner="inprocess")
    before = _certificates(first.output)
    monkeypatch.setitem(client_app.HANDLERS, TRAIN, train)
    again = simulate(settings, output=tmp_path / "run", runner="inprocess")
    assert again.results["failures"] == []
    assert again.results["digests"] == first.results["digests"]
    assert _certificates(again.output) == before


def test_an_interrupted_run_goes_on_where_it_stopped(
    finished: Simulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, output = _unmeasured(finished), tmp_path / "run"
    trained: list[str] = []
    power = iter([True] * 5 + [False] + [True] * UPSTREAM)
    original = client_app.HANDLERS[TRAIN]

    def train(message: Message, node: Node) -> RecordDict:
        if not next(power):
            raise KeyboardInterrupt
        trained.append(node.client)
        return original(message, node)

    monkeypatch.setitem(client_app.HANDLERS, TRAIN, train)
    with pytest.raises(KeyboardInterrupt):
        simulate(settings, output=output, runner="inprocess")
    assert len(trained) == 5
    assert not (output / "results.json").exists()
    run = simulate(settings, output=output, runner="inprocess")
    assert sorted(trained) == CLIENTS[:UPSTREAM]  # each of them once
    assert run.results["digests"] == finished.results["digests"]
    assert _certificates(output) == _certificates(finished.output)


def test_clients_that_fail_are_counted_by_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: dict[str, Exception] = {
        CLIENTS[1]: OSError("the disk is full"),
        CLIENTS[2]: OSError("the disk is full"),
        CLIENTS[5]: DataError("no labels"),
        CLIENTS[-1]: MemoryError(),
    }

    def faulty(handler: Handler) -> Handler:
        def handle(message: Message, node: Node) -> RecordDict:
            if node.client in faults:
                raise faults[node.client]
            return handler(message, node)

        return handle

    monkeypatch.setitem(client_app.HANDLERS, TRAIN, faulty(client_app.HANDLERS[TRAIN]))
    monkeypatch.setitem(client_app.HANDLERS, CERTIFY, faulty(client_app.HANDLERS[CERTIFY]))
    run = simulate(tiny_settings(), output=tmp_path / "run", runner="inprocess")
    assert run.results["failures"] == [
        {
            "phase": "training",
            "cause": "OSError: the disk is full",
            "clients": 2,
            "named": CLIENTS[1:3],
        },
        {"phase": "training", "cause": "no labels", "clients": 1, "named": [CLIENTS[5]]},
        {
            "phase": "certification",
            "cause": "MemoryError",
            "clients": 1,
            "named": [CLIENTS[-1]],
        },
    ]
    assert [row["client"] for row in run.results["clients"]] == [CLIENTS[UPSTREAM]]
    assert run.summary["new_clients"] == 1
    assert run.results["prior"]["pool_size"] == UPSTREAM - 3


def test_too_few_adapters_are_an_error_with_its_causes(tmp_path: Path) -> None:
    names = ",".join(CLIENTS[:5])
    broken = tiny_settings(scenario__options__broken=names)
    expected = "fewer than 10 adapters came in, too few for a prior: 5 x training .*: Runtime"
    with pytest.raises(RunError, match=expected):
        simulate(broken, output=tmp_path / "run", runner="inprocess")
    assert not (tmp_path / "run" / "results.json").exists()
    assert not (tmp_path / "run" / "report.html").exists()


# What must not be overwritten


def _tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_folder_with_other_settings_is_refused(finished: Simulation) -> None:
    before = _tree(finished.output)
    expected = (
        r"holds a run with other settings \(see .*settings\.toml: .* there and .* here.*\); "
        "choose another"
    )
    with pytest.raises(RunError, match=expected):
        simulate(tiny_settings(), output=finished.output, runner="inprocess")
    assert _tree(finished.output) == before


@pytest.mark.parametrize(
    ("changes", "runner", "text"),
    [
        ({"scenario__name": "nowhere"}, "inprocess", "there is no scenario 'nowhere'"),
        ({"scenario__name": "json:Nothing"}, "inprocess", "json defines no class derived"),
        ({"scenario__options__color": 1}, "inprocess", "does not take these options.*color"),
        ({}, "thread", "there is no runner 'thread'; choose ray or inprocess"),
    ],
)
def test_a_mistake_in_the_settings_leaves_nothing_behind(
    tmp_path: Path, changes: dict[str, Any], runner: str, text: str
) -> None:
    # Else the corrected command would be told that the folder has other settings.
    with pytest.raises(SettingsError, match=text):
        simulate(tiny_settings(**changes), output=tmp_path / "run", runner=runner)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_finished_run_as_it_was(
    finished: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    before = _tree(finished.output)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        simulate(_settings_of(finished.output), output=finished.output, runner="inprocess")
    assert _tree(finished.output) == before


# The runner


def test_the_in_process_runner_opens_no_port_and_starts_no_process(tmp_path: Path) -> None:
    process = psutil.Process()
    seen: list[tuple[int, int]] = []

    def look() -> None:
        listening = [
            connection
            for connection in process.net_connections(kind="all")
            if connection.status == psutil.CONN_LISTEN or connection.laddr
        ]
        seen.append((len(listening), len(process.children(recursive=True))))

    class Watcher(Viewer):
        def on_phase(self, name: str, total: int | None) -> None:
            look()

        def on_progress(self, done: int, total: int | None) -> None:
            look()

    look()
    settings = tiny_settings()
    simulate(settings, output=tmp_path / "run", runner="inprocess", listeners=[Watcher()])
    look()
    assert len(seen) > UPSTREAM + NEW
    assert set(seen) == {seen[0]}


def test_the_runners_have_these_names() -> None:
    assert list(RUNNERS) == ["ray", "inprocess"]


def test_a_run_does_not_touch_the_global_generators(tmp_path: Path) -> None:
    np.random.seed(0)  # noqa: NPY002
    expected = np.random.RandomState(0).uniform(size=3)
    settings = tiny_settings()
    simulate(settings, output=tmp_path / "run", runner="inprocess")
    assert list(np.random.uniform(size=3)) == list(expected)  # noqa: NPY002


def test_every_candidate_keeps_a_share_of_the_mean_adapter(tmp_path: Path) -> None:
    simulation = simulate(tiny_settings(prior__keep=0.25), output=tmp_path, runner="inprocess")
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.prior.kind == "interpolated"
    assert bundle.notes["kept_of_mean"] == 0.25
    certificates = [
        Certificate.from_json(text.decode()) for text in _certificates(tmp_path).values()
    ]
    assert len(certificates) == simulation.summary["new_clients"] == NEW
    for certificate in certificates:
        assert verify_record(certificate).extended(check_bundle(certificate, bundle)).passed
    # The prior of the same uploads without the share draws other candidates.
    simulate(tiny_settings(), output=tmp_path / "plain", runner="inprocess")
    rest = Bundle.load(tmp_path / "plain" / "bundle").prior.sample("ab" * 32, count=400)
    mixed = bundle.prior.sample("ab" * 32, count=400)
    assert np.var(mixed, axis=0).sum() == pytest.approx(0.75**2 * np.var(rest, axis=0).sum())


def test_certificates_speak_about_the_reference_sample_of_their_bundle(tmp_path: Path) -> None:
    asked = {"certificate__promises": "reference"}
    with pytest.raises(SettingsError, match="keeps no reference sample: set its option"):
        simulate(tiny_settings(**asked), output=tmp_path / "none", runner="inprocess")
    settings = tiny_settings(**asked, scenario__options={"reference": 80})
    run = simulate(settings, output=tmp_path / "run", runner="inprocess").output
    bundle = Bundle.load(run / "bundle")
    assert bundle.reference is not None
    assert len(bundle.reference) == 80
    folder = run / "clients" / NEW_CLIENTS[0]
    record = Certificate.read(folder / "certificate.json")
    base = bundle.load_base(str(load_scenario(settings.scenario.name, {}).base_model()))
    report = verify(record, bundle=bundle, adapter=folder / "adapter", base=base)
    assert report.passed, report.reasons
    [found] = [check for check in report.checks if check.name == "reference sample"]
    assert f"errors on {80}" in found.detail
