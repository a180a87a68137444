"""One deployed federation, run to its end with intruders at the door; many tests look at it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tiny_models import Family

from fedcert.deployment import Deployment, FinishedRun, NodeSetup
from fedcert.deployment.credentials import make_node_key
from fedcert.deployment.processes import marked
from fedcert.simulations.deployed_example import Example, digits_on_nodes, grow_pool

SIMULATED = 12
TINY = {
    "adapter.rank": 2,
    "training.steps": 10,
    "prior.kind": "gaussian",
    "certificate.candidates": 50,
    "server.min-pool": 10,
}


@dataclass
class Deployed:
    """What a finished run left behind."""

    folder: Path
    example: Example
    finished: FinishedRun
    said: list[str]
    online: list[dict[str, Any]]
    stranger_exit: int | None
    plain_exit: int | None
    pids: list[int]
    port: int

    @property
    def run(self) -> Path:
        return self.example.output

    def clients(self, role: str) -> list[str]:
        return [node.client for node in self.example.nodes if node.role == role]


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory, vit: Family) -> Deployed:
    folder = tmp_path_factory.mktemp("deployed").resolve()
    example = digits_on_nodes(
        folder, nodes=3, simulated=SIMULATED, base=vit.folder, overrides=TINY
    )
    grow_pool(example.output / "pool", example.settings, example.simulated)
    said: list[str] = []
    # One of them runs its ClientApp apart, as in a container.
    nodes = (replace(example.nodes[0], isolated=True), *example.nodes[1:])
    with Deployment(folder, nodes, say=said.append) as deployment:
        data = example.nodes[-1].data
        for client in ("stranger", "plain"):
            deployment.nodes[client] = NodeSetup(client, "new", data)
            make_node_key(deployment.key_of(client))
        stranger = deployment.start_node("stranger")
        plain = deployment.start_node("plain", secure=False)
        finished = deployment.submit(example.config).wait(300)
        listed = json.loads(
            deployment.flwr("supernode", "list", "deployed", "--format", "json")
        )
        exits = stranger.process.poll(), plain.process.poll()
        pids = [process.pid for process in marked(f"{folder}|")]
        port = deployment.port
    return Deployed(folder, example, finished, said, listed["nodes"], *exits, pids, port)
