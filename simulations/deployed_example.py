"""A small deployment to try: each node has its own handwritten digits in a file of its own."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedcert.adapters import Task, encode, finetune
from fedcert.atomic import write_atomically
from fedcert.data.examples import Examples
from fedcert.deployment.nodes import NodeSetup
from fedcert.errors import SettingsError
from fedcert.models import with_task_head
from fedcert.pool import Pool
from fedcert.randomness import small_seed
from fedcert.scenarios import load_scenario
from fedcert.settings import RunSettings
from fedcert.simulations.scenarios.digits import Digits

__all__ = ["Example", "digits_on_nodes", "grow_pool", "write_table"]

_SUPPORT = 64
# Who is who must not depend on how many there are: then a folder can get further nodes.
_NODES, _SIMULATED = 100, 900

Config = dict[str, str | bool | int | float]


@dataclass(frozen=True)
class Example:
    """What a deployment of digits needs.

    Attributes
    ----------
    nodes : tuple of NodeSetup
        Upstream nodes first, then the new ones.
    config : dict
        The run's configuration, by dotted key.
    output : Path
        Where the server writes.
    simulated : Mapping[str, Examples]
        Examples of clients that no node stands for; see `grow_pool`.
    """

    nodes: tuple[NodeSetup, ...]
    config: Config
    output: Path
    simulated: Mapping[str, Examples]

    @property
    def settings(self) -> RunSettings:
        """The run's settings, as server and nodes will read them."""
        return RunSettings.from_flat({k: v for k, v in self.config.items() if k != "output"})


def digits_on_nodes(
    folder: Path,
    *,
    nodes: int,
    simulated: int,
    base: Path | None = None,
    overrides: Mapping[str, str | bool | int | float] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Example:
    """Deal out the digits to nodes, and write each node's file and copy of the base model.

    Half of the nodes train, the others are new clients. The server gets a copy of the base
    model and none of the files. With more nodes those that were there keep id, part, and file.

    Parameters
    ----------
    folder : Path
        The folder of the deployment.
    nodes : int
        Two or more.
    simulated : int
        Clients beside those on nodes, for `grow_pool`.
    base : Path, optional
        A model for 8 x 8 images; by default the one of the scenario `digits`.
    overrides : Mapping, optional
        Settings of the run, by dotted key.
    say : callable
        Called with a line of progress.

    Returns
    -------
    Example
        The files of the nodes, and the settings of the run.
    """
    if nodes < 2:
        raise SettingsError(f"{nodes} nodes are too few: one has to train, another to certify")
    upstream, new = nodes // 2, nodes - nodes // 2
    if new > _NODES or simulated > _SIMULATED:
        raise SettingsError(
            f"the digits are dealt out to at most {2 * _NODES} nodes and {_SIMULATED} "
            f"simulated clients, not {nodes} and {simulated}"
        )
    # A setting that is none is told before anything is made.
    RunSettings.from_flat({"scenario.name": "own-data", **(overrides or {})})
    digits = Digits(upstream=_NODES + _SIMULATED, new=_NODES)
    others = digits.upstream_clients[_NODES:][:simulated]
    say("prepare the base model")
    # With the task's head: what is handed out is the very model that bundles name.
    made = with_task_head(base or digits.base_model(on_step=say), digits.labels)
    server_base = _copy(made, folder / "base-model")
    setups = []
    for client in digits.upstream_clients[:upstream] + digits.new_clients[:new]:
        own = folder / "nodes" / client
        if client in digits.upstream_clients:
            role, examples = "upstream", digits.training_examples(client)
        else:
            role, examples = "new", digits.support_examples(client, _SUPPORT)
        write_table(own / "data.csv", examples, digits.labels)
        copy = _copy(server_base, own / "base-model")
        setups.append(NodeSetup(client, role, own / "data.csv", copy))
    config: Config = {
        "output": str(folder.resolve() / "run"),
        "scenario.name": "own-data",
        "scenario.options.labels": ",".join(digits.labels),
        "scenario.options.base": str(server_base.resolve()),
        "scenario.options.image": "1x8x8",
        "scenario.options.low": 0.0,
        "scenario.options.high": 16.0,
        "server.nodes": nodes,
        "server.registration-timeout": 300.0,
        "server.timeout": 600.0,
        "server.state": str(folder.resolve() / "server"),
        **(overrides or {}),
    }
    examples_of = {client: digits.training_examples(client) for client in others}
    return Example(tuple(setups), config, folder / "run", examples_of)


def grow_pool(
    folder: Path,
    settings: RunSettings,
    clients: Mapping[str, Examples],
    *,
    say: Callable[[str], None] = lambda _: None,
) -> Pool:
    """Train upstream clients here and pool their adapters, as a simulation does.

    A few nodes cannot fill a pool from which a prior can be fitted. These clients could: they
    have the same task, the same base model, and examples that no node has.

    Parameters
    ----------
    folder : Path
        The pool; clients that are in it are left out.
    settings : RunSettings
        Settings of the run that is to go on with the pool.
    clients : Mapping[str, Examples]
        What each of them trains on, by client id.
    say : callable
        Called with a line of progress.

    Returns
    -------
    Pool
        The pool with an adapter of every client.
    """
    task = load_scenario(settings.scenario.name, settings.scenario.options)
    base = task.load_base()
    space = settings.space_of(base)
    pool, model = Pool(folder, space), Task(base, space, task.inputs).model()
    waiting = [client for client in clients if client not in pool]
    if waiting:
        say(f"grow the pool by {len(waiting)} simulated clients")
    for client in waiting:
        trained = finetune(
            model,
            clients[client],
            seed=small_seed("finetune", settings.seed, client),
            settings=settings.finetune_settings(),
        )
        pool.add(
            client,
            encode(space, trained.vector),
            space_digest=space.digest,
            examples=trained.examples,
            loss=trained.loss,
        )
    return pool


def write_table(path: Path, examples: Examples, labels: tuple[str, ...]) -> None:
    """Write images as CSV: a column for each value, and the column ``label``.

    Parameters
    ----------
    path : Path
        The CSV file.
    examples : Examples
        The images with their labels.
    labels : tuple of str
        Names of the labels, by index.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    flat = examples.inputs.reshape(len(examples), -1)
    writer.writerow([*(f"value{i}" for i in range(flat.shape[1])), "label"])
    for values, label in zip(flat.tolist(), examples.labels, strict=True):
        writer.writerow([*values, labels[label]])
    write_atomically(path, text.getvalue().encode())


def _copy(source: Path, target: Path) -> Path:
    if source.resolve() != target.resolve():
        shutil.copytree(source, target, dirs_exist_ok=True)
    return target
