"""Who a node is, and where its keys and files are."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, RecordDict
from simulations.federation import CLIENTS, NEW, UPSTREAM, tiny_settings

from fedcert.clients.node import Node, node_of
from fedcert.errors import CertificateError, RefusalError, SettingsError
from fedcert.protocol.device import DeviceState
from fedcert.records.signing import generate_key, public_hex, read_key, write_key
from fedcert.settings import RunSettings

TOTAL = UPSTREAM + NEW


def _context(**config: Any) -> Context:
    named = {key.replace("_", "-"): value for key, value in config.items()}
    return Context(1, 1, named, RecordDict(), {})


def _node(settings: RunSettings, **config: Any) -> Node:
    return node_of(_context(**config), settings, Path("/run"))


def test_the_partition_names_the_client_and_its_part(settings: RunSettings) -> None:
    nodes = [_node(settings, partition_id=index) for index in range(TOTAL)]
    assert [node.client for node in nodes] == CLIENTS
    assert [node.role for node in nodes] == ["upstream"] * UPSTREAM + ["new"] * NEW
    assert nodes[3].folder == Path("/run/clients/tiny-03")
    assert nodes[3].key_path is None


def test_the_partition_may_be_text(settings: RunSettings) -> None:
    assert _node(settings, partition_id="3").client == CLIENTS[3]


@pytest.mark.parametrize("config", [{}, {"partition_id": "x"}, {"num_partitions": 3}])
def test_a_node_without_partition(settings: RunSettings, config: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"has no partition-id, and no data-path either"):
        _node(settings, **config)


@pytest.mark.parametrize("index", [-1, TOTAL, 10**9])
def test_a_partition_out_of_range(settings: RunSettings, index: int) -> None:
    expected = f"^partition-id {index} is out of range: tiny has {TOTAL} clients$"
    with pytest.raises(SettingsError, match=expected):
        _node(settings, partition_id=index)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a" * 65, "a b", "ä", "a\n"])
def test_an_id_that_cannot_name_a_folder(
    settings: RunSettings, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from tiny_scenario import Tiny

    monkeypatch.setattr(Tiny, "upstream_clients", (name,))
    with pytest.raises(SettingsError, match=r"^client id .* cannot be the name of a folder$"):
        _node(settings, partition_id=0)


def test_an_unknown_scenario() -> None:
    with pytest.raises(SettingsError, match="there is no scenario 'nowhere'"):
        _node(tiny_settings(scenario__name="nowhere"), partition_id=0)


def test_options_of_the_scenario_reach_it_and_may_be_lists(settings: RunSettings) -> None:
    few = tiny_settings(scenario__options__upstream=3)
    assert _node(few, partition_id=3).role == "new"
    assert _node(settings, partition_id=3).role == "upstream"
    with pytest.raises(SettingsError, match=r"does not take these options.*'colors'"):
        _node(tiny_settings(scenario__options__colors=[1, [2]]), partition_id=0)


def test_all_nodes_of_a_process_share_data_and_base_model(settings: RunSettings) -> None:
    first, second = (_node(settings, partition_id=index) for index in (0, 15))
    assert first.scenario is second.scenario
    assert first.base_model() is second.base_model()


def test_a_node_may_have_a_folder_of_its_own(settings: RunSettings, tmp_path: Path) -> None:
    node = _node(settings, partition_id=0, output=str(tmp_path))
    assert node.folder == tmp_path


# Keys


def test_derived_keys_follow_from_seed_and_client(settings: RunSettings) -> None:
    def public(settings: RunSettings, index: int) -> str:
        return public_hex(_node(settings, partition_id=index).signing_key())

    assert public(settings, 14) == public(settings, 14)
    assert public(settings, 14) == public(tiny_settings(training__steps=3), 14)
    other = tiny_settings(seed=1)
    assert len({public(settings, 14), public(settings, 15), public(other, 14)}) == 3


def test_a_key_of_its_own(settings: RunSettings, tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    key = generate_key()
    write_key(path, key)
    node = _node(settings, partition_id=14, key_path=str(path))
    assert public_hex(node.signing_key()) == public_hex(key)


def test_a_missing_key_is_made_once(settings: RunSettings, tmp_path: Path) -> None:
    path = tmp_path / "keys" / "node.key"
    node = _node(settings, partition_id=14, key_path=str(path))
    first = public_hex(node.signing_key())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert public_hex(read_key(path)) == public_hex(node.signing_key()) == first


def test_a_ledger_that_commands_began_is_not_passed_by(
    settings: RunSettings, tmp_path: Path
) -> None:
    """`fedcert personalize --key client.key` keeps one beside the key."""
    key, commands = tmp_path / "client.key", tmp_path / "client.state"
    named = {"partition_id": 0, "output": str(tmp_path), "key_path": str(key)}
    node = _node(settings, **named)
    commands.mkdir()
    node.state()
    examples = node.training_examples()
    DeviceState(commands).spent.mark(examples, "a certificate")
    with pytest.raises(RefusalError, match="set state-path in the node's configuration"):
        node.state()
    asked = _node(settings, **named, state_path=str(commands)).state()
    assert asked.spent.purposes(examples) == ["a certificate"] * len(examples)


def test_a_key_that_others_can_read_is_refused(settings: RunSettings, tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    write_key(path, generate_key())
    path.chmod(0o644)
    node = _node(settings, partition_id=14, key_path=str(path))
    with pytest.raises(CertificateError, match=r"open to other users \(mode 644\).*chmod 600"):
        node.signing_key()


def test_a_node_computes_where_it_says_or_else_where_the_run_says(
    settings: RunSettings,
) -> None:
    assert _node(settings, partition_id=0).device == "auto"
    elsewhere = settings.model_copy(update={"device": "cpu"})
    assert _node(elsewhere, partition_id=0).device == "cpu"
    own = _node(elsewhere, partition_id=0, device="cuda:1")
    assert own.device == "cuda:1"
    if not torch.cuda.is_available():
        with pytest.raises(SettingsError, match="the device 'cuda:1' is not here"):
            own.base_model()
    with pytest.raises(SettingsError, match="there is no device 'gpu'"):
        _node(settings, partition_id=0, device="gpu")
