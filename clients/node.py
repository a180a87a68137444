"""What a node is: its client id, its part, its files and keys."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context

from fedcert.certificates.signing import key_from_seed, read_or_create_key
from fedcert.errors import SettingsError
from fedcert.messages import CLIENT_ID, NEW, UPSTREAM
from fedcert.models.base import BaseModel, load_base_model
from fedcert.randomness import derive_seed
from fedcert.scenarios import Scenario, load_scenario
from fedcert.settings import RunSettings, ScenarioSettings

__all__ = ["Node", "node_of"]


@dataclass(frozen=True)
class Node:
    """One client, as seen from its own machine.

    Attributes
    ----------
    client : str
        Its stable id.
    role : str
        Its part: upstream or new.
    scenario : Scenario
        Where its data come from.
    settings : RunSettings
        The run's settings.
    folder : Path
        Where it keeps what it makes.
    key_path : Path or None
        Its signing key; None in a simulation, where keys are derived from the run's seed.
    """

    client: str
    role: str
    scenario: Scenario
    settings: RunSettings
    folder: Path
    key_path: Path | None

    def base_model(self) -> BaseModel:
        """Load the base model once per process; all virtual clients there share it."""
        return _shared_base(str(self.scenario.base_model()), len(self.scenario.labels))

    def signing_key(self) -> Ed25519PrivateKey:
        """Return the key that signs certificates.

        A derived key proves nothing about who signed: anybody can derive it. It makes
        simulations repeatable.
        """
        if self.key_path is not None:
            return read_or_create_key(self.key_path)
        seed = derive_seed("simulated client key", self.settings.seed, self.client)
        return key_from_seed(bytes.fromhex(seed))


def node_of(context: Context, settings: RunSettings, output: Path) -> Node:
    """Find out who this node is from Flower's context.

    ``partition-id`` names the client: upstream clients come first, then the new ones. A
    node's own configuration may set ``key-path`` and ``output``.

    Raises
    ------
    SettingsError
        If the partition is missing or out of range.
    """
    scenario = _shared_scenario(settings.scenario)
    clients = scenario.upstream_clients + scenario.new_clients
    try:
        index = int(context.node_config["partition-id"])
    except (KeyError, ValueError) as error:
        raise SettingsError("the node's configuration has no partition-id") from error
    if not 0 <= index < len(clients):
        raise SettingsError(
            f"partition-id {index} is out of range: {scenario.name} has {len(clients)} clients"
        )
    client = clients[index]
    if not CLIENT_ID.fullmatch(client):
        raise SettingsError(f"client id {client!r} cannot be the name of a folder")
    key_path = context.node_config.get("key-path")
    own_output = context.node_config.get("output")
    return Node(
        client=client,
        role=UPSTREAM if index < len(scenario.upstream_clients) else NEW,
        scenario=scenario,
        settings=settings,
        folder=Path(str(own_output)) if own_output else output / "clients" / client,
        key_path=Path(str(key_path)) if key_path else None,
    )


# One scenario per process: all virtual clients there share its data. Its options may be
# lists, so this is no `lru_cache`.
_scenarios: dict[str, Scenario] = {}


def _shared_scenario(settings: ScenarioSettings) -> Scenario:
    key = repr(settings)
    if key not in _scenarios:
        scenario = load_scenario(settings.name, settings.options)
        _scenarios.clear()
        _scenarios[key] = scenario
    return _scenarios[key]


@lru_cache(maxsize=2)
def _shared_base(folder: str, num_labels: int) -> BaseModel:
    return load_base_model(folder, num_labels=num_labels)
