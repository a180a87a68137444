"""Scenario `named-intents`: labels of one's own, unseen upstream, and disjoint texts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models.tiny_encoders import save_sentence_encoder
from tiny_intents import write_requests

from fedcert.errors import DataError, SettingsError
from fedcert.models import load_base_model
from fedcert.scenarios import Scenario, load_scenario
from fedcert.simulations.clinc import FILE
from fedcert.simulations.scenarios.named_intents import NamedIntents

SMALL: dict[str, Any] = {"upstream": 6, "new": 4, "training_size": 20, "test_size": 9}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_requests(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sentence_encoder(tmp_path_factory.mktemp("encoder"))


def _scenario(folder: Path, encoder: Path, **options: Any) -> NamedIntents:
    given = SMALL | {"ways": 3, "data": str(folder), "base": str(encoder)} | options
    found = load_scenario("tiny_intents:TinyNamedIntents", given)
    assert isinstance(found, NamedIntents)
    return found


def _domains(scenario: NamedIntents, client: str) -> set[str]:
    return {scenario._table[2][intent] for intent in scenario.labels_of(client)}


@pytest.mark.parametrize("setting", ["mixed", "domain"])
def test_planners_have_intents_that_no_other_client_has(
    setting: str, folder: Path, encoder: Path
) -> None:
    scenario = _scenario(folder, encoder, setting=setting, planners=2)
    assert scenario.planning_clients == scenario.upstream_clients[-2:]
    others = (*scenario.upstream_clients[:-2], *scenario.new_clients)
    taken = {name for client in others for name in scenario.labels_of(client)}
    planned = {name for c in scenario.planning_clients for name in scenario.labels_of(c)}
    assert not taken & planned
    # New clients are the same, and without planners nothing is.
    plain = _scenario(folder, encoder, setting=setting)
    assert plain.planning_clients == ()
    for client in scenario.new_clients:
        assert scenario.labels_of(client) == plain.labels_of(client)
    with pytest.raises(SettingsError, match="6 cannot be planners"):
        _scenario(folder, encoder, planners=6)


@pytest.mark.parametrize("setting", ["mixed", "domain"])
def test_no_upstream_client_has_a_new_clients_intent(
    setting: str, folder: Path, encoder: Path
) -> None:
    scenario = _scenario(folder, encoder, setting=setting)
    sets = {
        c: scenario.labels_of(c) for c in (*scenario.upstream_clients, *scenario.new_clients)
    }
    assert {len(set(names)) for names in sets.values()} == {3}
    assert len(set(sets.values())) > 1
    seen = {name for client in scenario.upstream_clients for name in sets[client]}
    unseen = {name for client in scenario.new_clients for name in sets[client]}
    assert not seen & unseen
    if setting == "domain":
        assert all(len(_domains(scenario, client)) == 1 for client in sets)
        upstream = [_domains(scenario, client) for client in scenario.upstream_clients]
        new = [_domains(scenario, client) for client in scenario.new_clients]
        assert not set.union(*upstream) & set.union(*new)
    again = _scenario(folder, encoder, setting=setting)
    assert all(again.labels_of(client) == names for client, names in sets.items())
    other = _scenario(folder, encoder, setting=setting, seed=1)
    assert any(other.labels_of(client) != names for client, names in sets.items())


@pytest.mark.parametrize("setting", ["mixed", "domain"])
def test_texts_are_those_of_the_labels_and_disjoint(
    setting: str, folder: Path, encoder: Path
) -> None:
    scenario = _scenario(folder, encoder, setting=setting)
    intents = dict(zip(scenario._table[0], scenario._table[1], strict=True))
    trained = set()
    for client in scenario.upstream_clients:
        examples = scenario.training_examples(client)
        trained |= set(examples.inputs)
        assert len(examples) == 20
    for client in scenario.new_clients:
        names = scenario.labels_of(client)
        support, test = scenario.support_examples(client, 12), scenario.test_examples(client)
        for part in (support, test):
            found = [names[label] for label in part.labels]
            assert found == [intents[text] for text in part.inputs]
        assert not set(support.inputs) & set(test.inputs)
        assert not (set(support.inputs) | set(test.inputs)) & trained
        fewer = scenario.support_examples(client, 5)
        np.testing.assert_array_equal(fewer.inputs, support.inputs[:5])


def test_the_base_model_takes_every_clients_labels(folder: Path, encoder: Path) -> None:
    scenario = _scenario(folder, encoder)
    base = load_base_model(str(scenario.base_model()))
    assert scenario.labels == ()
    assert base.takes_labels
    labeled = base.with_labels(scenario.labels_of(scenario.new_clients[0]))
    assert labeled.num_labels == 3


def test_options_that_do_not_fit_are_refused(folder: Path, encoder: Path) -> None:
    with pytest.raises(SettingsError, match="no setting 'odd'; choose mixed or domain"):
        NamedIntents(setting="odd")
    with pytest.raises(SettingsError, match="ways must be at least 2"):
        NamedIntents(ways=1)
    with pytest.raises(SettingsError, match="must be at least 1"):
        NamedIntents(new=0)
    scenario = _scenario(folder, encoder, setting="domain", ways=5)
    with pytest.raises(SettingsError, match="no client can have 5 intents of its own"):
        scenario.labels_of(scenario.new_clients[0])
    with pytest.raises(DataError, match="has no client 'nobody'"):
        scenario.labels_of("nobody")
    scenario = _scenario(folder, encoder)
    with pytest.raises(DataError, match="1 to 21 support examples, not 22"):
        scenario.support_examples(scenario.new_clients[0], 22)


def test_other_scenarios_share_their_labels() -> None:
    digits = load_scenario("digits", {})
    assert isinstance(digits, Scenario)
    assert digits.labels_of(digits.new_clients[0]) == digits.labels


@pytest.mark.skipif(
    not (Path(os.environ.get("FEDCERT_DATA", "/none")) / FILE).is_file(),
    reason="FEDCERT_DATA names no folder with CLINC150",
)
@pytest.mark.parametrize(("setting", "ways"), [("mixed", 5), ("domain", 10)])
def test_clinc_gives_every_client_enough(setting: str, ways: int, encoder: Path) -> None:
    scenario = NamedIntents(setting=setting, base=str(encoder))
    object.__setattr__(scenario._base.options, "max_length", 8)
    for client in scenario.new_clients:
        assert len(scenario.labels_of(client)) == ways
        assert len(scenario.support_examples(client, 128)) == 128
        assert len(scenario.test_examples(client)) >= 250
