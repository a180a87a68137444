"""What a node is: its client id, its part, its files and keys."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context

from fedcert.adapters import AdaptedModel, AdapterSpace, PrefixCache, exported_digest
from fedcert.certificates.signing import key_from_seed, read_or_create_key
from fedcert.errors import SettingsError
from fedcert.messages import CLIENT_ID, NEW, UPSTREAM
from fedcert.models.base import BaseModel, load_base_model
from fedcert.protocol.device import DeviceState
from fedcert.randomness import derive_seed
from fedcert.scenarios import Scenario, load_scenario
from fedcert.settings import RunSettings
from fedcert.settings_sections import ScenarioSettings

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
    state_path : Path or None
        Its state folder, which must outlive runs; by default ``state`` in its folder.
    adapter_path : Path or None
        A PEFT LoRA adapter, trained on its training examples, that it brings instead of
        training one.
    """

    client: str
    role: str
    scenario: Scenario
    settings: RunSettings
    folder: Path
    key_path: Path | None
    state_path: Path | None = None
    adapter_path: Path | None = None

    @property
    def lora_rank(self) -> int | None:
        """Rank of the plain LoRA adapter that it trains; None if it trains in the space.

        Upstream clients take the ranks of ``training.lora_ranks`` in turn.
        """
        ranks = self.settings.lora_ranks()
        if not ranks or self.client not in self.scenario.upstream_clients:
            return None
        return ranks[self.scenario.upstream_clients.index(self.client) % len(ranks)]

    def training_identity(self) -> dict[str, Any]:
        """Return what its adapter depends on beside the server's words: a JSON object."""
        if self.adapter_path is not None:
            return {"brought": exported_digest(self.adapter_path)}
        return {} if self.lora_rank is None else {"lora_rank": self.lora_rank}

    def base_model(self) -> BaseModel:
        """Load the base model once per process; all virtual clients there share it."""
        return _shared_base(str(self.scenario.base_model()), len(self.scenario.labels))

    def adapted_model(self, space: AdapterSpace) -> AdaptedModel:
        """Return the base model in an adapter space.

        All virtual clients of a process share what the frozen layers make of texts.
        """
        cache = _shared_cache(self.settings.client.cache_mib)
        return AdaptedModel(self.base_model(), space, prefix_cache=cache)

    def state(self) -> DeviceState:
        """Return what this client has spent and committed to, in its own folder.

        In a simulation secret and salts follow from the run's seed, as the keys do.
        """
        folder = self.folder / "state"
        if self.key_path is not None:
            return DeviceState(self.state_path or folder)
        seed = derive_seed("simulated client state", self.settings.seed, self.client)
        return DeviceState(self.state_path or folder, simulated=seed)

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
    node's own configuration may set ``key-path``, ``state-path``, ``adapter-path``, and
    ``output``.

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
    state_path = context.node_config.get("state-path")
    adapter_path = context.node_config.get("adapter-path")
    own_output = context.node_config.get("output")
    return Node(
        client=client,
        role=UPSTREAM if index < len(scenario.upstream_clients) else NEW,
        scenario=scenario,
        settings=settings,
        folder=Path(str(own_output)) if own_output else output / "clients" / client,
        key_path=Path(str(key_path)) if key_path else None,
        state_path=Path(str(state_path)) if state_path else None,
        adapter_path=Path(str(adapter_path)) if adapter_path else None,
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


@lru_cache(maxsize=1)
def _shared_cache(budget_mib: float) -> PrefixCache:
    return PrefixCache(budget_mib)


@lru_cache(maxsize=2)
def _shared_base(folder: str, num_labels: int) -> BaseModel:
    return load_base_model(folder, num_labels=num_labels)
