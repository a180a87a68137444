"""What a node is: its client id, its part, its files and keys."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context

from fedcert import __version__
from fedcert.adapters import AdaptedModel, AdapterSpace, PrefixCache, Task, exported_digest
from fedcert.bundles import Bundle
from fedcert.clients.node_config import (
    demand_of,
    flag_of,
    own_data,
    partition_of,
    path_of,
    plans_of,
    refuse_misspelt,
)
from fedcert.clients.own_training import Training, name_of
from fedcert.data.examples import Examples
from fedcert.devices import AUTO, check_device, describe_device, resolve_device
from fedcert.errors import RefusalError, SettingsError
from fedcert.messages import PROTOCOL_VERSION, HelloReply
from fedcert.models.base import BaseModel, load_base_model
from fedcert.privacy import PrivacyDemand, UploadPrivacy
from fedcert.protocol.device import DeviceState
from fedcert.protocol.ledgers import NODE_KEY, NODE_STATE, commands_state, has_ledger
from fedcert.randomness import derive_seed
from fedcert.records.signing import key_from_seed, read_or_create_key
from fedcert.scenarios import Scenario, load_scenario
from fedcert.settings import RunSettings
from fedcert.settings.sections import ScenarioSettings
from fedcert.warm_start import merged_folder, trunk_part

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
    demand : PrivacyDemand or None
        The weakest promise under which it uploads; None if the run's settings decide.
    duplicates_are_real : bool
        Whether inputs that occur more than once in its support set were drawn more than once:
        its owner's statement, or that of the scenario which draws them.
    repeats_are_new : bool
        Whether inputs of its support set that are spent already came up again in a fresh
        sample: its owner's statement.
    device : str
        Where it computes; by default where the run's settings say.
    training : Training or None
        Its own training loop, if its ClientApp was built with one.
    bases : Path or None
        Where base models are that came of warm starts; virtual clients share them.
    plans : bool
        Whether it is to plan before other upstream clients do.
    """

    client: str
    role: str
    scenario: Scenario
    settings: RunSettings
    folder: Path
    key_path: Path | None
    state_path: Path | None = None
    adapter_path: Path | None = None
    demand: PrivacyDemand | None = None
    duplicates_are_real: bool = False
    repeats_are_new: bool = False
    device: str = AUTO
    training: Training | None = None
    bases: Path | None = None
    plans: bool = False

    def training_examples(self) -> Examples:
        """Return what its adapter is trained on: nothing that a warm start is trained on."""
        examples = self._readable_examples()
        return self._parts(examples)[1] if self.settings.warm_start.rounds else examples

    def trunk_examples(self) -> Examples:
        """Return what it trains the trunk of a warm start on."""
        return self._parts(self._readable_examples())[0]

    def _parts(self, examples: Examples) -> tuple[Examples, Examples]:
        share = self.settings.warm_start.share
        return trunk_part(examples, share, client=self.client)

    def _readable_examples(self) -> Examples:
        """Return its training examples without what cannot be read, telling so."""
        examples = self.scenario.training_examples(self.client)
        if left_out := examples.always_wrong:
            # Training is no sample that a claim rests on: here leaving out is free.
            print(
                f"{self.client}: {left_out} of {len(examples)} training examples cannot be "
                "read, or have no label of the task; they are left out of training",
                file=sys.stderr,
                flush=True,
            )
        return examples.usable

    @property
    def lora_rank(self) -> int | None:
        """Rank of the plain LoRA adapter that it trains; None if it trains in the space.

        Upstream clients take the ranks of ``training.lora_ranks`` in turn; a deployed node,
        which knows of no other, takes the first.
        """
        ranks = self.settings.lora_ranks()
        if not ranks or self.client not in self.scenario.upstream_clients:
            return None
        return ranks[self.scenario.upstream_clients.index(self.client) % len(ranks)]

    def upload_privacy(self) -> UploadPrivacy | None:
        """Return the promise of its upload; None if neither run nor node asks for one.

        Raises
        ------
        RefusalError
            If the node demands one and the run offers none.
        """
        offered = self.settings.upload_privacy()
        return offered if self.demand is None else self.demand.met_by(offered)

    def training_identity(self) -> dict[str, Any]:
        """Return what its adapter depends on beside the server's words: a JSON object."""
        if self.adapter_path is not None:
            return {"brought": exported_digest(self.adapter_path)}
        if self.training is not None:
            return {"loop": name_of(self.training)}
        return {} if self.lora_rank is None else {"lora_rank": self.lora_rank}

    def introduction(self) -> HelloReply:
        """Return what the node says when the roll is called."""
        return HelloReply(
            self.client, self.role, PROTOCOL_VERSION, __version__, self.plans or None
        )

    def base_model(self, digest: str = "") -> BaseModel:
        """Load a base model once per process; all virtual clients there share it.

        Parameters
        ----------
        digest : str (default: "")
            Of what is asked for; if a warm start made it, that one. Otherwise it is the one
            that the task names, and whoever uses it compares the digests.
        """
        folder = self.scenario.base_model()
        if digest and self.bases is not None:
            merged = merged_folder(self.bases, digest)
            folder = merged if merged.is_dir() else folder
        return _shared_base(str(folder), tuple(self.scenario.labels), self.device)

    def task(self, space: AdapterSpace) -> Task:
        """Return the run's task in an adapter space, with this client's labels."""
        base = self.base_model(space.base_digest)
        task = Task(base, space, self.scenario.inputs, self.scenario.labels)
        return task if self.scenario.labels else task.with_labels(self._own_labels)

    def task_of(self, bundle: Bundle) -> Task:
        """Return a bundle's task, with this client's labels."""
        labels = self._own_labels if bundle.takes_labels else None
        return bundle.task(self.base_model(bundle.base_digest), labels=labels)

    @property
    def _own_labels(self) -> tuple[str, ...]:
        return self.scenario.labels_of(self.client)

    def model_of(self, task: Task) -> AdaptedModel:
        """Return a task's model.

        All virtual clients of a process share what the frozen layers make of texts.
        """
        budgets = self.settings.client
        return task.model(prefix_cache=_shared_cache(budgets.cache_mib, budgets.cache_disk_mib))

    def state(self) -> DeviceState:
        """Return what this client has spent and committed to, in its own folder.

        In a simulation secret and salts follow from the run's seed, as the keys do.

        Raises
        ------
        RefusalError
            If commands have begun a ledger with the node's key, which the node's does not know.
        """
        folder = self.folder / NODE_STATE
        if self.key_path is not None:
            if self.state_path is None:
                _check_no_other_ledger(self.key_path, folder)
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


def _check_no_other_ledger(key: Path, folder: Path) -> None:
    """Refuse to begin beside a ledger of commands: the same examples would count twice."""
    commands = commands_state(key)
    if commands != folder and has_ledger(commands):
        raise RefusalError(
            "commands have used this node's key, and their ledger of spent examples is not the "
            "node's: set state-path in the node's configuration to the folder that knows what "
            "was spent (the key's name with the ending .state)"
        )


def node_of(context: Context, settings: RunSettings, output: Path) -> Node:
    """Find out who this node is from Flower's context.

    With ``data-path`` the node is a deployed one: ``client-id`` and ``role`` say who it is,
    it reads that file alone, and keeps key, state, and what it makes under ``output``.
    Otherwise it is simulated: ``partition-id`` names the client of the run's scenario,
    upstream clients first, then the new ones. Either way ``key-path``, ``state-path``,
    ``adapter-path``, and ``output`` may name places, ``base-model`` a folder or hub id
    that takes the place of the scenario's option ``base``, and ``device`` where it computes.

    Parameters
    ----------
    context : Context
        Flower's context of the node.
    settings : RunSettings
        The run's.
    output : Path
        The run folder, for nodes that name no other.

    Returns
    -------
    Node
        The node's task, data, keys, and folders.

    Raises
    ------
    SettingsError
        If a key is missing or wrong; the message names it.
    """
    config = context.node_config
    refuse_misspelt(config)
    base = str(config.get("base-model", ""))
    if Path(base).is_absolute() and not Path(base).is_dir():
        raise SettingsError(
            f"base-model = {base!r} in the node's configuration is no folder on this machine"
        )
    scenario = _shared_scenario(settings.scenario, base)
    own = path_of(config, "output")
    if "data-path" not in config:
        client, role = partition_of(config, scenario)
        folder = own or output / "clients" / client
        key_path, state_path = path_of(config, "key-path"), path_of(config, "state-path")
    else:
        client, role, scenario = own_data(config, scenario)
        if own is None:
            raise SettingsError(
                "the node's configuration has a data-path and no output: add "
                'output="/absolute/folder", where the node keeps what must outlive runs'
            )
        folder = own
        # Keys that follow from the run's seed, as in a simulation, would be everybody's.
        key_path = path_of(config, "key-path") or own / NODE_KEY
        state_path = path_of(config, "state-path")
    demand = demand_of(config, role)
    return Node(
        client=client,
        role=role,
        scenario=scenario,
        settings=settings,
        folder=folder,
        key_path=key_path,
        state_path=state_path,
        adapter_path=path_of(config, "adapter-path"),
        demand=demand,
        duplicates_are_real=flag_of(config, "duplicates-are-real")
        or scenario.duplicates_are_real,
        repeats_are_new=flag_of(config, "repeats-are-new"),
        device=check_device(str(config.get("device") or settings.device)),
        bases=(own or output) / "warm-start",
        plans=plans_of(config, role) or client in scenario.planning_clients,
    )


# One scenario per process: all virtual clients there share its data. Its options may be
# lists, so this is no `lru_cache`.
_scenarios: dict[str, Scenario] = {}


def _shared_scenario(settings: ScenarioSettings, base: str) -> Scenario:
    options = {**settings.options, "base": base} if base else settings.options
    key = repr((settings.name, options))
    if key not in _scenarios:
        scenario = load_scenario(settings.name, options)
        _scenarios.clear()
        _scenarios[key] = scenario
    return _scenarios[key]


@lru_cache(maxsize=1)
def _shared_cache(budget_mib: float, disk_mib: float) -> PrefixCache:
    return PrefixCache(budget_mib, disk_mib=disk_mib)


@lru_cache(maxsize=2)
def _shared_base(folder: str, labels: tuple[str, ...], device: str) -> BaseModel:
    place = resolve_device(device)
    if place.type != "cpu":
        print(f"computing on {describe_device(place)}", file=sys.stderr, flush=True)
    return load_base_model(folder, num_labels=len(labels), labels=labels, device=place)
