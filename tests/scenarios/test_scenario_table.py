"""A user's own table: who is new, and that no item stands on both sides."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_text import BAD, GOOD, save_tiny_backbone

from fedcert.data import ImageInputs
from fedcert.data.examples import Examples
from fedcert.errors import DataError, SettingsError
from fedcert.randomness import keyed_generator
from fedcert.scenarios import Scenario, load_scenario

OPTIONS: dict[str, Any] = {
    "input": "comment",
    "label": "verdict",
    "client": "rater",
    "item": "id",
    "new": 3,
    "smallest": 30,
    "smallest_new": 30,
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 200 comments, each judged by 6 of 15 raters, whose thresholds differ."""
    path = tmp_path_factory.mktemp("table") / "comments.csv"
    generator = keyed_generator("tests/table")
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "comment", "verdict", "rater", "site"])
        for item in range(200):
            good = int(generator.integers(0, 7))
            words = [*generator.choice(GOOD, good), *generator.choice(BAD, 6 - good)]
            for rater in generator.choice(15, 6, replace=False):
                verdict = "fine" if good > 2 + rater % 3 else "rude"
                site = "b" if rater >= 11 else "a"
                rows.writerow([item, " ".join(words), verdict, f"rater {rater:02d}", site])
        rows.writerow([0, "good1", "fine", "rater with one row", "a"])
    return path


def _scenario(table: Path, **changes: Any) -> Scenario:
    return load_scenario("table", OPTIONS | {"source": str(table)} | changes)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_backbone(tmp_path_factory.mktemp("backbone"), "bert"))


def _texts(examples: Examples | None) -> set[str]:
    assert examples is not None
    return set(examples.inputs)


def test_no_item_stands_on_both_sides(table: Path, backbone: str) -> None:
    scenario = _scenario(table, base=backbone, max_length=8, smallest=20)
    assert scenario.labels == ("fine", "rude")
    assert len(scenario.new_clients) == 3
    assert scenario.upstream_clients
    trained = set().union(*(_texts(scenario.training_examples(c)) for c in _upstream(scenario)))
    support = set().union(*(_texts(scenario.support_examples(c, 20)) for c in _new(scenario)))
    tests = set().union(*(_texts(scenario.test_examples(c)) for c in _new(scenario)))
    assert not trained & support
    assert not trained & tests
    assert not support & tests


def _upstream(scenario: Scenario) -> tuple[str, ...]:
    return scenario.upstream_clients


def _new(scenario: Scenario) -> tuple[str, ...]:
    return scenario.new_clients


def test_the_same_options_give_the_same_examples(table: Path, backbone: str) -> None:
    options = {"base": backbone, "max_length": 8, "smallest": 20}
    one, two = _scenario(table, **options), _scenario(table, **options)
    assert (one.upstream_clients, one.new_clients) == (two.upstream_clients, two.new_clients)
    client = one.new_clients[0]
    assert list(one.support_examples(client, 25).inputs) == (
        list(two.support_examples(client, 25).inputs)
    )
    nested = one.support_examples(client, 25).inputs[:10]
    assert list(one.support_examples(client, 10).inputs) == list(nested)
    other = _scenario(table, **options, seed=1)
    assert other.new_clients != one.new_clients


def test_names_that_are_no_folder_become_digests(table: Path, backbone: str) -> None:
    scenario = _scenario(table, base=backbone, max_length=8, smallest=20)
    assert all(c.startswith("client-") for c in scenario.new_clients)


def test_new_clients_named_by_a_column(table: Path, backbone: str) -> None:
    scenario = _scenario(
        table, held_out="site=b", new=0, new_size=20, smallest=20, base=backbone, max_length=8
    )
    assert len(scenario.new_clients) == 4
    with pytest.raises(DataError, match="no row has site=z"):
        _ = _scenario(table, held_out="site=z").new_clients


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"source": ""}, SettingsError, "needs the option `source`"),
        ({"held_out": "site"}, SettingsError, "column=value"),
        ({"smallest": 1}, SettingsError, "smallest be at least 4"),
        ({"support_share": 1.0}, SettingsError, "between 0 and 1"),
        ({"smallest": 500}, DataError, "0 clients have 500 rows or more"),
        ({"client": "who"}, DataError, "no column 'who'; it has id, comment"),
        ({"inputs": "x"}, SettingsError, "does not take these options"),
    ],
)
def test_mistakes(
    table: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _ = _scenario(table, **changes).new_clients


def test_too_large_a_support_set(table: Path, backbone: str) -> None:
    scenario = _scenario(table, base=backbone, max_length=8, smallest=20)
    with pytest.raises(DataError, match=r"lower certificate\.support_size"):
        scenario.support_examples(scenario.new_clients[0], 500)


def test_images(tmp_path: Path) -> None:
    generator = keyed_generator("tests/images")
    path = tmp_path / "images.npz"
    np.savez(
        path,
        input=generator.integers(0, 16, (240, 8, 8)),
        label=np.arange(240) % 2,
        client=np.arange(240) // 40,
    )
    scenario = load_scenario(
        "table",
        {"source": str(path), "new": 2, "smallest": 40, "high": 16.0} | {"smallest_new": 40},
    )
    assert scenario.inputs == ImageInputs(1, 8, 8, 0.0, 16.0)
    assert scenario.labels == ("0", "1")
    assert len(scenario.upstream_clients) == 4
    assert scenario.training_examples(scenario.upstream_clients[0]).inputs.shape == (
        40,
        1,
        8,
        8,
    )
    with pytest.raises(SettingsError, match="option `base`, an image model"):
        scenario.base_model()


def test_simulate_ends_with_certificates(table: Path, backbone: str, tmp_path: Path) -> None:
    from fedcert.settings import RunSettings
    from fedcert.simulations.simulating import simulate

    settings = RunSettings.from_mapping(
        {
            "scenario": {
                "name": "table",
                "options": OPTIONS
                | {"source": str(table), "base": backbone, "max_length": 8, "smallest": 14}
                | {"new": 2},
            },
            "adapter": {"rank": 2},
            "training": {"steps": 5},
            "prior": {"kind": "gaussian"},
            "certificate": {"candidates": 30, "support_size": 24},
            "server": {"min_pool": 10},
            "evaluation": {"baselines": False},
        }
    )
    simulation = simulate(settings, output=tmp_path / "run", runner="inprocess")
    assert simulation.summary["new_clients"] == 2
    assert all(row["verified"] for row in simulation.results["clients"])
    inputs = json.loads((tmp_path / "run" / "bundle" / "bundle.json").read_text())["inputs"]
    assert inputs["kind"] == "text"
