"""Federations of which some nodes compute elsewhere give what one device would."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from simulations.federation import CLIENTS, UPSTREAM, tiny_settings

from fedcert.adapters import AdapterSpace
from fedcert.bundles import Bundle
from fedcert.certificates import Certificate
from fedcert.cli import main
from fedcert.clients import node
from fedcert.pool import Pool
from fedcert.settings import RunSettings
from fedcert.simulations import simulating
from fedcert.simulations.runners import flower_internals
from fedcert.simulations.simulating import Simulation, simulate
from fedcert.strategies import run as opening
from fedcert.verification import verify


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    return simulate(
        _settings("cpu"), output=tmp_path_factory.mktemp("cpu") / "run", runner="inprocess"
    )


def _settings(device: str) -> RunSettings:
    return tiny_settings(device=device)


def _adapters(run: Path, space: AdapterSpace) -> dict[str, np.ndarray]:
    pool = Pool(run / "pool", space)
    return {client: pool.matrix([client])[0] for client in pool.clients()}


def test_a_mixed_federation_pools_alike(
    on_cpu: Simulation,
    device: torch.device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def resolve(name: str) -> torch.device:
        return torch.device("cpu") if name == "cpu" else device

    for module in (node, opening, simulating):
        monkeypatch.setattr(module, "resolve_device", resolve)
    made = flower_internals.VirtualGrid.__init__

    def half_elsewhere(grid: flower_internals.VirtualGrid, *, nodes: int) -> None:
        made(grid, nodes=nodes)
        for place, context in enumerate(grid._contexts.values()):
            context.node_config["device"] = "cuda" if place % 2 else "cpu"

    monkeypatch.setattr(flower_internals.VirtualGrid, "__init__", half_elsewhere)
    made_here = simulate(_settings("cuda"), output=tmp_path / "run", runner="inprocess")
    bundle = Bundle.load(made_here.output / "bundle")
    other = Bundle.load(on_cpu.output / "bundle")
    assert bundle.space.digest == other.space.digest
    assert bundle.base_digest == other.base_digest
    here, there = (_adapters(run.output, bundle.space) for run in (made_here, on_cpu))
    assert sorted(here) == sorted(there) == CLIENTS[:UPSTREAM]
    for client, vector in here.items():
        np.testing.assert_allclose(vector, there[client], atol=1e-3)
    for client in CLIENTS[UPSTREAM:]:
        folder = made_here.output / "clients" / client
        certificate = Certificate.read(folder / "certificate.json")
        assert verify(certificate, bundle=bundle, adapter=folder / "adapter").failures == ()
    told = (made_here.output / "events.jsonl").read_text(encoding="utf-8")
    devices = [json.loads(line).get("device", "") for line in told.splitlines()]
    assert any(text.startswith(str(device)) for text in devices)


def test_a_run_goes_on_elsewhere(on_cpu: Simulation, tmp_path: Path) -> None:
    """Where a run computes is none of the settings by which a folder is known."""
    before = (on_cpu.output / "settings.toml").read_text(encoding="utf-8")
    path = tmp_path / "settings.toml"
    path.write_text(before.replace('device = "cpu"\n', ""), encoding="utf-8")
    assert simulating._are_in(path, _settings("mps"))
    assert simulating._are_in(path, tiny_settings(evaluation__baselines=True)) is False


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize(
    "words",
    [
        ["simulate", "digits", "--device", "cuda"],
        ["simulate", "digits", "--set", "device=cuda"],
    ],
)
def test_a_device_that_is_not_here_is_refused_in_a_line(
    words: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "run"
    command = ["fedcert", *words, "--runner", "inprocess", "--output", str(folder)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit, match="1"):
        main()
    told = capfd.readouterr().err
    assert told.startswith("error: the device 'cuda' is not here")
    assert len(told.splitlines()) == 1
    assert not folder.exists()
