"""A small federation whose nodes have files of their own, in this process or deployed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context, Message
from flwr.serverapp import Grid

from faults.device_rig import LABELS, SIDE, make_base, make_examples
from fedcert.clients.client_app import make_client_app
from fedcert.deployment import NodeSetup
from fedcert.models import with_task_head
from fedcert.settings import RunSettings
from fedcert.simulations.deployed_example import Config, grow_pool, write_table
from fedcert.simulations.runners.flower_internals import LocalGrid
from fedcert.strategies.prior_strategy import PriorStrategy
from fedcert.strategies.serving import serve

__all__ = ["NodeRig"]

_TRAINING, _SUPPORT = 60, 40
# Fewer cannot be screened and audited.
_POOL = 12

Answer = Callable[[Message, Context], Message]
MakeGrid = Callable[..., Grid]


@dataclass(frozen=True)
class NodeRig:
    """Nodes with files, and a pool that simulated clients have filled.

    Attributes
    ----------
    folder : Path
        Holds everything.
    nodes : tuple of NodeSetup
        Named ``up-0``, ``up-1``, ..., ``new-0``, ...
    config : dict
        The run's configuration, by dotted key.
    """

    folder: Path
    nodes: tuple[NodeSetup, ...]
    config: Config

    @staticmethod
    def make(folder: Path, *, upstream: int, new: int, **settings: float) -> NodeRig:
        """Make base model, files, and pool.

        Parameters
        ----------
        folder : Path
            An empty one.
        upstream, new : int
            Nodes of each part.
        **settings : float
            Further settings of the run; ``training__steps=3`` stands for ``training.steps``.
        """
        folder = folder.resolve()
        make_base(folder / "backbone")
        base = with_task_head(folder / "backbone", LABELS, folder / "base-model")
        names = [f"up-{i}" for i in range(upstream)] + [f"new-{i}" for i in range(new)]
        setups = []
        for seed, client in enumerate(names):
            training = client.startswith("up")
            path = folder / "data" / f"{client}.csv"
            examples = make_examples(_TRAINING if training else _SUPPORT, seed=seed)
            write_table(path, examples, LABELS)
            setups.append(NodeSetup(client, "upstream" if training else "new", path))
        config: Config = {
            "output": str(folder / "run"),
            "scenario.name": "own-data",
            "scenario.options.labels": ",".join(LABELS),
            "scenario.options.base": str(base),
            "scenario.options.image": f"1x{SIDE}x{SIDE}",
            "scenario.options.low": 0.0,
            "scenario.options.high": 1.0,
            "adapter.rank": 2,
            "training.steps": 10,
            "prior.kind": "gaussian",
            "certificate.candidates": 50,
            "server.min-pool": 10,
            "server.nodes": len(setups),
            "server.registration-timeout": 300.0,
            "server.state": str(folder / "server"),
        }
        rig = NodeRig(folder, tuple(setups), config)
        simulated = {
            f"simulated-{i:02d}": make_examples(_TRAINING, seed=100 + i) for i in range(_POOL)
        }
        grow_pool(rig.run / "pool", rig.settings, simulated)
        config |= {key.replace("__", "."): value for key, value in settings.items()}
        return rig

    @property
    def run(self) -> Path:
        """Where the server writes."""
        return self.folder / "run"

    @property
    def settings(self) -> RunSettings:
        """The run's settings."""
        return RunSettings.from_flat({k: v for k, v in self.config.items() if k != "output"})

    def serve_here(
        self,
        *,
        make_grid: MakeGrid = LocalGrid,
        special: Mapping[str, Callable[[Answer], Answer]] | None = None,
        bases: Mapping[str, Path] | None = None,
    ) -> PriorStrategy:
        """Run server and nodes in this process, each node on its own configuration.

        Parameters
        ----------
        make_grid : callable
            Makes the grid, as `LocalGrid` is made.
        special : Mapping, optional
            How a client's ClientApp is to be changed, by client id.
        bases : Mapping[str, Path], optional
            A node's own base model, likewise.
        """
        answer = make_client_app(self.settings, self.run)
        answers: list[tuple[Answer, Mapping[str, str]]] = []
        for node in self.nodes:
            change = (special or {}).get(node.client, _honest)
            own = {
                "client-id": node.client,
                "role": node.role,
                "data-path": str(node.data),
                "output": str(self.folder / "nodes" / node.client),
                "base-model": str((bases or {}).get(node.client, "")),
            }
            answers.append((change(answer), own))

        def dispatch(message: Message, context: Context) -> Message:
            own_answer, own = answers[int(context.node_config["partition-id"])]
            there = Context(
                context.run_id, context.node_id, dict(own), context.state, context.run_config
            )
            return own_answer(message, there)

        grid = make_grid(dispatch, nodes=len(self.nodes))
        return serve(grid, self.settings, output=self.run).strategy


def _honest(answer: Answer) -> Answer:
    return answer
