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
from fedcert.methods import METHODS
from fedcert.simulations.deployed_example import digits_on_nodes
from fedcert.verification import verify

pytestmark = pytest.mark.deploy

# What the methods share is tested in full by the two that are not slow: one that averages an
# adapter, with something personal on its nodes, and one that learns how to personalize.
_SOON = ("fedrep", "fedp2eft")


def _methods() -> list[object]:
    """Return every method whose nodes need no names of labels."""
    return [
        pytest.param(kind, marks=() if kind in _SOON else pytest.mark.slow)
        for kind in METHODS
        # A pool needs more nodes; the other tests here run the prior with one.
        if METHODS[kind].asks != "adapters" and kind != "zero-shot"
    ]


@pytest.mark.parametrize("method", _methods())
def test_a_deployment_ends_in_certificates_by_every_method(
    tmp_path: Path, vit: Family, method: str
) -> None:
    config: dict[str, str | int] = {
        "averaging.rounds": 2,
        "averaging.steps": 3,
        "averaging.head-steps": 3,
        "personal.steps": 4,
        "method": method,
        "server.min-pool": 0,
    }
    if method in {"fedp2eft", "fedl2p"}:
        config["averaging.options.net-rounds"] = 2
    example = digits_on_nodes(
        tmp_path.resolve(),
        nodes=4,
        simulated=0,
        base=vit.folder,
        overrides=TINY | config,
    )
    with Deployment(tmp_path.resolve(), example.nodes, say=lambda _: None) as deployment:
        finished = deployment.submit(example.config).wait(400)
    assert finished.status == "finished:completed"
    bundle = Bundle.load(example.output / "bundle")
    for node in example.nodes:
        own = tmp_path / "nodes" / node.client
        if node.role == "upstream":
            _check_upstream(own, method)
            continue
        certificate = Certificate.read(example.output / "certificates" / f"{node.client}.json")
        learns = METHODS[method].learns.partition(":")[0] != "nothing"
        assert certificate.recipe.kind == ("posterior_split" if learns else "default")
        found = verify(certificate, bundle=bundle, adapter=own / "adapter")
        assert found.passed, found.reasons


def _check_upstream(own: Path, method: str) -> None:
    """Look at what stayed on an upstream node: a head, an adapter, or statistics."""
    kept = sorted((own / "averaging").rglob("*.safetensors"))
    if method == "fedrep":
        first, last = kept
        assert np.abs(load_file(last)["head"] - load_file(first)["head"]).max() > 0
    elif method in {"fedp2eft", "fedl2p"}:
        assert set(load_file(kept[-1])) == {"statistics"}
