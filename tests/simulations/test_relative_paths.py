"""Relative paths are those of the process that a run was started in, also on Ray's workers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tiny_text import BAD, GOOD, save_tiny_backbone

from fedcert.scenarios import Scenario, absolute_options
from fedcert.settings import RunSettings
from fedcert.simulations.runners.flower_internals import _PATH_VARIABLES
from fedcert.simulations.simulating import simulate


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with a table and a base model in it."""
    rows = [
        f"{GOOD[i % 9]} {BAD[i % 7]} {i},{'fine' if i // 12 % 2 else 'rude'},c{i % 12}"
        for i in range(360)
    ]
    (tmp_path / "rows.csv").write_text("\n".join(["input,label,client", *rows]))
    save_tiny_backbone(tmp_path / "tb", "bert")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _settings(**options: Any) -> RunSettings:
    chosen = {"source": "rows.csv", "base": "tb", "max_length": 8, "new": 1, "smallest": 9}
    return RunSettings.from_mapping(
        {
            "scenario": {"name": "table", "options": chosen | {"smallest_new": 9} | options},
            "adapter": {"rank": 2},
            "training": {"steps": 2},
            "prior": {"kind": "gaussian"},
            # None is planned: which one is best differs between machines, and 8 labels are
            # too few for some.
            "certificate": {"candidates": 10, "support_size": 8, "recipe": "default"},
            "server": {"min_pool": 10},
            "evaluation": {"baselines": False},
        }
    )


def test_a_run_on_ray(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDCERT_CACHE", "cache")
    simulation = simulate(_settings(), output=Path("run"), runner="ray")
    assert simulation.results["failures"] == []
    assert simulation.summary["new_clients"] == 1
    written = RunSettings.read(here / "run" / "settings.toml").scenario.options
    assert (written["source"], written["base"]) == (str(here / "rows.csv"), str(here / "tb"))
    assert (here / "cache").is_dir()
    assert os.environ["FEDCERT_CACHE"] == "cache"
    # The same command goes on in the same folder, also from elsewhere.
    monkeypatch.chdir(here / "tb")
    again = _settings(source="../rows.csv", base=str(here / "tb"))
    options = again.with_absolute_paths().scenario.options
    assert Path(options["source"]).resolve() == here / "rows.csv"


def test_every_variable_that_names_a_folder_is_known() -> None:
    assert {"FEDCERT_DATA", "FEDCERT_CACHE"} <= {*_PATH_VARIABLES}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("base", "org/model"),
        ("source", "none.csv"),
        ("label", "rows.csv"),
        ("base", ""),
        ("new", 1),
    ],
)
def test_what_is_no_path_stays(here: Path, option: str, value: Any) -> None:
    del here
    assert absolute_options("table", {option: value}) == {option: value}


def test_a_home_folder_and_the_parts_of_a_path(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(here))
    assert absolute_options("table", {"source": "~/rows.csv"}) == {
        "source": str(here / "rows.csv")
    }
    assert absolute_options("intents", {"data": "."}) == {"data": str(here)}


def test_a_scenario_names_its_own_options(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(Scenario):
        paths = frozenset({"corpus"})

    monkeypatch.setattr("fedcert.scenarios._find_class", lambda _name: Own)
    found = absolute_options("own", {"corpus": "rows.csv", "source": "rows.csv"})
    assert found == {"corpus": str(here / "rows.csv"), "source": "rows.csv"}
