"""A method with rounds on SuperNodes: what is personal stays there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_models import Family

from deployment.conftest import TINY
from fedcert.bundles import Bundle
from fedcert.certificates import Certificate
from fedcert.deployment import Deployment
from fedcert.simulations.deployed_example import digits_on_nodes
from fedcert.verification import verify

pytestmark = pytest.mark.deploy


def test_nodes_keep_their_heads_and_the_shared_part_is_certified(
    tmp_path: Path, vit: Family
) -> None:
    quick = {"averaging.rounds": 2, "averaging.steps": 3, "averaging.head-steps": 3}
    example = digits_on_nodes(
        tmp_path.resolve(),
        nodes=4,
        simulated=0,
        base=vit.folder,
        overrides=TINY | quick | {"method": "fedrep", "server.min-pool": 0},
    )
    with Deployment(tmp_path.resolve(), example.nodes, say=lambda _: None) as deployment:
        finished = deployment.submit(example.config).wait(400)
    assert finished.status == "finished:completed"
    bundle = Bundle.load(example.output / "bundle")
    for node in example.nodes:
        own = tmp_path / "nodes" / node.client
        if node.role == "upstream":
            first, last = sorted((own / "averaging").rglob("*.safetensors"))
            assert np.abs(load_file(last)["head"] - load_file(first)["head"]).max() > 0
            continue
        certificate = Certificate.read(example.output / "certificates" / f"{node.client}.json")
        assert certificate.recipe.kind == "posterior_split"
        found = verify(certificate, bundle=bundle, adapter=own / "adapter")
        assert found.passed, found.reasons
