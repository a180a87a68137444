"""The thin Flower app that `flwr run` takes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import psutil
import pytest

from fedcert.bundles import Bundle
from fedcert.certificates import Certificate, verify_record
from fedcert.clients.client_app import app as client_app
from fedcert.methods import METHODS, Method
from fedcert.scenarios import load_scenario, option_names
from fedcert.settings import RunSettings
from fedcert.simulations.scenarios.digits import Digits
from fedcert.simulations.scenarios.own_data import OwnData
from fedcert.simulations.simulating import simulate
from fedcert.strategies.server_app import app as server_app
from fedcert.verification import check_bundle, verify
from simulations.federation import CLIENTS, SCENARIO, UPSTREAM, tiny_settings

APP = Path(__file__).parents[2] / "simulations" / "app"
# What `tiny_settings` differ in from an app's.
AS_TINY: dict[str, Any] = {
    "scenario__name": SCENARIO,
    "scenario__options__upstream": UPSTREAM,
    "scenario__options__new": 2,
    "adapter__rank": 2,
    "training__steps": 10,
    "prior__kind": "gaussian",
    "certificate__candidates": 50,
    "certificate__support_size": 32,
    "server__min_pool": 10,
}


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested tables as Flower does."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        key = f"{prefix}{name}"
        flat |= _flat(value, f"{key}.") if isinstance(value, dict) else {key: value}
    return flat


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    project = tomllib.loads((APP / "pyproject.toml").read_text(encoding="utf-8"))
    return _flat(project["tool"]["flwr"]["app"]["config"])


def test_its_config_has_every_setting_with_its_default(config: dict[str, Any]) -> None:
    # `flwr run -c` takes only keys that are there.
    expected = {
        key.replace("_", "-"): value for key, value in _flat(RunSettings().model_dump()).items()
    }
    found = {key: value for key, value in config.items() if ".options." not in key}
    assert found.pop("output") == ""
    assert found == expected
    assert {k: type(v) for k, v in found.items()} == {k: type(v) for k, v in expected.items()}


def test_its_options_are_a_scenarios_own_and_left_to_it(config: dict[str, Any]) -> None:
    options = {
        key.removeprefix("scenario.options.").replace("-", "_"): value
        for key, value in config.items()
        if key.startswith("scenario.options.")
    }
    # Empty: any other value would reach every scenario, also one that lacks the option.
    assert set(options.values()) == {""}
    known = {*option_names(Digits), *option_names(OwnData)}
    # `flwr run` has no mappings.
    assert set(option_names(OwnData)) - {"phrases"} <= options.keys() <= known


def test_its_config_has_the_options_of_every_method(config: dict[str, Any]) -> None:
    common = {*(entry.name for entry in fields(Method)), "linears"}  # which the base model says
    names = {
        entry.name.replace("_", "-")
        for method in METHODS.values()
        if method.__module__.startswith("fedcert.")  # another test may have entered its own
        for entry in fields(method)
        if entry.name not in common
    }
    listed = {k: v for k, v in config.items() if k.startswith("averaging.options.")}
    assert listed == {f"averaging.options.{name}": "" for name in names}


def test_its_config_is_accepted(config: dict[str, Any]) -> None:
    settings = {key: value for key, value in config.items() if key != "output"}
    read = RunSettings.from_flat(settings)
    assert read.scenario.options == read.averaging.options == {}
    assert read.training == RunSettings().training


@pytest.mark.parametrize(
    ("name", "expected"), [("server_app", server_app), ("client_app", client_app)]
)
def test_its_modules_hold_the_librarys_apps(
    name: str, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(APP)
    module = __import__(f"fedcert_app.{name}", fromlist=["app"])
    assert module.app is expected
    assert module.__all__ == ["app"]
    # Flower looks for this very text, without importing the module.
    assert '__all__ = ["app"]' in (APP / "fedcert_app" / f"{name}.py").read_text().splitlines()


# `flwr run`, for real


class Flower:
    """Flower's command line with a home, a port, and an empty working directory of its own."""

    def __init__(self, folder: Path) -> None:
        self._empty = folder / "empty"
        self._empty.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.home = folder / "flower"
        self._environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "FLWR_HOME": str(self.home),
            "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(port),
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_TELEMETRY_ENABLED": "0",
        }

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            ["flwr", *arguments],
            capture_output=True,
            text=True,
            cwd=self._empty,
            env=self._environment,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run(self, **config: Any) -> dict[str, Any]:
        """Run the app to its end; return what `flwr list` says about it."""
        pairs = " ".join(
            f"{key.replace('__', '.').replace('_', '-')}={json.dumps(value)}"
            for key, value in config.items()
        )
        nodes = f"num-supernodes={len(CLIENTS)} client-resources-num-cpus=1"
        self(
            *("run", str(APP), "--stream", "--run-config", pairs),
            *("--federation-config", f"{nodes} init-args-num-cpus=2"),
        )
        runs = json.loads(self("list", "--format", "json"))["runs"]
        newest: dict[str, Any] = max(runs, key=lambda run: run["pending-at"])
        return newest

    def stop(self) -> None:
        """Stop the SuperLink, which `flwr run` starts detached, and all that it started."""
        processes = [process for process in psutil.process_iter() if self._is_ours(process)]
        for process in processes:
            process.terminate()
        _, alive = psutil.wait_procs(processes, timeout=20)
        for process in alive:
            process.kill()

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("FLWR_HOME") == str(self.home)
        except psutil.Error:
            return False


@pytest.fixture(scope="module")
def flower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flower]:
    flower = Flower(tmp_path_factory.mktemp("flwr"))
    yield flower
    flower.stop()
    time.sleep(1)
    assert not any(flower._is_ours(process) for process in psutil.process_iter())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["prior", "fedrep"])
def test_flwr_run_gives_the_certificates_of_a_simulation(
    flower: Flower, tmp_path: Path, method: str
) -> None:
    output = tmp_path / "run"
    rounds = {"method": method, "averaging__rounds": 2, "averaging__steps": 3}
    run = flower.run(
        output=str(output),
        **AS_TINY,
        **rounds,
    )
    assert run["status"] == "finished:completed"
    bundle = Bundle.load(output / "bundle")
    settings = tiny_settings(**rounds)
    here = simulate(settings, output=tmp_path / "here", runner="inprocess")
    for client in CLIENTS[UPSTREAM:]:
        certificate = Certificate.read(output / "certificates" / f"{client}.json")
        report = verify_record(certificate).extended(check_bundle(certificate, bundle))
        assert report.passed, report.failures
        own = (output / "clients" / client / "certificate.json").read_bytes()
        assert own == (here.output / "clients" / client / "certificate.json").read_bytes()
    assert bundle.digest == here.results["digests"]["bundle"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [kind for kind in METHODS if kind not in {"prior", "zero-shot"}]
)
def test_flwr_run_ends_in_certificates_by_every_method(
    flower: Flower, tmp_path: Path, method: str
) -> None:
    output = tmp_path / "run"
    net = {"averaging__options__net_rounds": 2} if method in {"fedp2eft", "fedl2p"} else {}
    run = flower.run(
        output=str(output),
        method=method,
        **net,
        scenario__name=SCENARIO,
        scenario__options__upstream=UPSTREAM,
        scenario__options__new=2,
        adapter__rank=2,
        training__steps=10,
        averaging__rounds=2,
        averaging__steps=3,
        averaging__clients=5,
        averaging__head_steps=3,
        personal__steps=4,
        certificate__support_size=32,
        server__min_pool=10,
    )
    assert run["status"] == "finished:completed"
    bundle = Bundle.load(output / "bundle")
    scenario = load_scenario(SCENARIO, {"upstream": UPSTREAM, "new": 2})
    for client in CLIENTS[UPSTREAM:]:
        certificate = Certificate.read(output / "certificates" / f"{client}.json")
        found = verify(
            certificate,
            bundle=bundle,
            adapter=output / "clients" / client / "adapter",
            data=scenario.support_examples(client, 32),
            base=bundle.load_base(str(scenario.base_model())),
        )
        assert found.passed, found.reasons


@pytest.mark.slow
def test_flwr_run_warms_the_base_model_up_as_a_simulation_does(
    flower: Flower, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {
        "warm_start__rounds": 2,
        "warm_start__clients_per_round": 5,
        "warm_start__steps": 2,
        "warm_start__personal_steps": 2,
        "warm_start__rank": 2,
        "warm_start__weights": "equal",
        "warm_start__epsilon": 8.0,
    }
    output = tmp_path / "run"
    run = flower.run(
        output=str(output),
        **AS_TINY,
        **changes,
    )
    assert run["status"] == "finished:completed"
    here = simulate(tiny_settings(**changes), output=tmp_path / "here", runner="inprocess")
    results = json.loads((output / "results.json").read_text())
    assert results["failures"] == []
    assert results["warm_start"]["after"] == here.results["warm_start"]["after"]
    assert results["warm_start"]["privacy"] == here.results["warm_start"]["privacy"]
    assert Bundle.load(output / "bundle").digest == here.results["digests"]["bundle"]


@pytest.mark.slow
def test_flwr_run_without_an_output_fails_and_says_why(flower: Flower) -> None:
    run = flower.run(scenario__name=SCENARIO)
    assert run["status"] == "finished:failed"
    text = flower("log", run["run-id"], "--show")
    assert "is not an absolute path" in text
