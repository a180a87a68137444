from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from simulations.federation import finished_simulation

from fedcert.cli import main
from fedcert.data import Examples
from fedcert.records.signing import generate_key, write_key
from fedcert.scenarios import load_scenario
from fedcert.simulations.simulating import Simulation


@dataclass
class Outcome:
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    """Run a command as the shell would; return exit status and what was printed."""
    monkeypatch.setenv("FEDCERT_STATE", str(tmp_path_factory.mktemp("user") / "state"))

    def command(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["fedcert", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capfd.readouterr()
        code = ended.value.code
        return Outcome(code if isinstance(code, int) else 0, printed.out, printed.err)

    return command


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    return finished_simulation(tmp_path_factory.getbasetemp() / "simulation")


@pytest.fixture(scope="session")
def bundle(finished: Simulation) -> Path:
    return finished.output / "bundle"


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "device.key"
    write_key(path, generate_key())
    return path


@pytest.fixture(scope="session")
def examples() -> Examples:
    """The support set of a device that took no part in the simulation."""
    return load_scenario("tiny_scenario:Tiny", {}).support_examples("device", 40)


@pytest.fixture
def data(tmp_path: Path, examples: Examples) -> Path:
    """The same examples as CSV, NPZ and JSON lines; returns the CSV file."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = examples.inputs.reshape(len(examples), -1).tolist()
    names = [("dark", "bright")[label] for label in examples.labels]
    with (folder / "examples.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"p{i}" for i in range(16)), "label"])
        writer.writerows([*row, name] for row, name in zip(rows, names, strict=True))
    np.savez(folder / "examples.npz", input=examples.inputs, label=examples.labels)
    lines = [
        json.dumps({"input": row, "label": name}) for row, name in zip(rows, names, strict=True)
    ]
    (folder / "examples.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "examples.csv"


def tree(folder: Path) -> dict[str, bytes | None]:
    """Return everything under a folder: the content of files, and None for folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }
