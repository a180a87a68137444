"""What a node's configuration says: Flower's ``--node-config``, key by key."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from fedcert.clients.node_data import NodeData
from fedcert.errors import SettingsError
from fedcert.messages import CLIENT_ID, NEW, UPSTREAM
from fedcert.privacy import PrivacyDemand
from fedcert.scenarios import Scenario

__all__ = [
    "demand_of",
    "flag_of",
    "own_data",
    "partition_of",
    "path_of",
    "plans_of",
    "refuse_misspelt",
]

NodeConfig = Mapping[str, Any]

_KEYS = (
    *("client-id", "role", "data-path", "input-column", "label-column"),
    *("output", "key-path", "state-path", "base-model", "adapter-path"),
    *("privacy-epsilon", "privacy-delta", "privacy-clip", "privacy-budget"),
    *("duplicates-are-real", "repeats-are-new", "labels-path", "unlabeled-path"),
    *("device", "plans"),
)
# Alike enough to be meant: a letter too many, or an underscore for a dash.
_ALIKE = 0.85


def demand_of(config: NodeConfig, role: str) -> PrivacyDemand | None:
    """Return what the node demands for its uploads, if it can be kept.

    Raises
    ------
    SettingsError
        If it cannot be kept.
    """
    demand = PrivacyDemand.of_node(config)
    if demand is None:
        return None
    if role != UPSTREAM:
        raise SettingsError(
            "privacy-epsilon in the configuration of a node with the role 'new': it is for "
            "uploads, and a certificate carries no noise; remove it, or the role"
        )
    if not config.get("output") and not config.get("state-path"):
        raise SettingsError(
            "privacy-epsilon in the node's configuration needs output or state-path there, "
            "too: where the server says it would keep its ledger, it could forget it"
        )
    return demand


def refuse_misspelt(config: NodeConfig) -> None:
    """Raise `SettingsError` for a key that would be ignored; other apps' keys are theirs."""
    for key in config.keys() - set(_KEYS):
        if "privacy" in key or "epsilon" in key:
            raise SettingsError(
                f"{key} is no key of the node's configuration; what it demands of privacy it "
                "says with privacy-epsilon, privacy-delta, privacy-clip, and privacy-budget"
            )
        if meant := get_close_matches(key, _KEYS, n=1, cutoff=_ALIKE):
            raise SettingsError(
                f"{key} is no key of the node's configuration; write {meant[0]} instead"
            )


def partition_of(config: NodeConfig, scenario: Scenario) -> tuple[str, str]:
    """Return id and part of a simulated client.

    Raises
    ------
    SettingsError
        If it is out of range, or missing.
    """
    clients = scenario.upstream_clients + scenario.new_clients
    try:
        index = int(config["partition-id"])
    except (KeyError, ValueError) as error:
        raise SettingsError(
            "the node's configuration has no partition-id, and no data-path either: a node "
            "with data of its own needs client-id, role, data-path, and output"
        ) from error
    if not 0 <= index < len(clients):
        raise SettingsError(
            f"partition-id {index} is out of range: {scenario.name} has {len(clients)} clients"
        )
    client = clients[index]
    if not CLIENT_ID.fullmatch(client):
        raise SettingsError(f"client id {client!r} cannot be the name of a folder")
    return client, UPSTREAM if index < len(scenario.upstream_clients) else NEW


def own_data(config: NodeConfig, task: Scenario) -> tuple[str, str, NodeData]:
    """Return id, part, and data of a deployed client.

    Raises
    ------
    SettingsError
        If a key is missing or wrong.
    """
    client, role = str(config.get("client-id", "")), str(config.get("role", ""))
    if not CLIENT_ID.fullmatch(client):
        raise SettingsError(
            f"client-id = {client!r} in the node's configuration: give the client's stable "
            "name, of at most 64 letters, digits, dots, dashes, and underscores, that begins "
            "with a letter or digit"
        )
    if role not in (UPSTREAM, NEW):
        raise SettingsError(
            f"role = {role!r} in the node's configuration: give {UPSTREAM!r} for a node that "
            f"trains an adapter, or {NEW!r} for one that is to be certified"
        )
    path = path_of(config, "data-path")
    if path is None or not path.is_file():
        raise SettingsError(
            f"data-path = {str(config['data-path'])!r} in the node's configuration is no file "
            "on this machine"
        )
    if role == UPSTREAM and config.get("unlabeled-path"):
        raise SettingsError(
            "unlabeled-path in the configuration of a node with the role 'upstream': inputs "
            "without labels have a part in a new client's adapter alone; remove it, or the role"
        )
    data = NodeData(
        task,
        client=client,
        role=role,
        path=path,
        input_column=str(config.get("input-column", "input")),
        label_column=str(config.get("label-column", "label")),
        labels_path=path_of(config, "labels-path"),
        unlabeled_path=path_of(config, "unlabeled-path"),
    )
    return client, role, data


def path_of(config: NodeConfig, key: str) -> Path | None:
    """Return a path of the node's configuration; None if it is not there.

    Raises
    ------
    SettingsError
        If it is no absolute path.
    """
    text = str(config.get(key, ""))
    if text and not Path(text).is_absolute():
        raise SettingsError(
            f"{key} = {text!r} in the node's configuration is not an absolute path: the "
            "working directory is that of the SuperNode"
        )
    return Path(text) if text else None


def plans_of(config: NodeConfig, role: str) -> bool:
    """Return whether the node's owner wants it to plan rather than to train.

    Raises
    ------
    SettingsError
        If it is neither yes nor no, or nothing that this node can do.
    """
    plans = flag_of(config, "plans")
    if plans and (role != UPSTREAM or PrivacyDemand.of_node(config) is not None):
        raise SettingsError(
            "plans in the node's configuration is for a node with the role 'upstream' and "
            "without privacy-epsilon: who plans answers without noise; remove it"
        )
    return plans


def flag_of(config: NodeConfig, key: str) -> bool:
    """Return a yes or no of the node's configuration; False if it is not there.

    Raises
    ------
    SettingsError
        If it is neither.
    """
    value = str(config.get(key, False)).lower()
    if value not in ("true", "false"):
        raise SettingsError(
            f"{key} = {value!r} in the node's configuration must be true or false"
        )
    return value == "true"
