"""A warm start on SuperNodes: each makes the new base model itself, from a few matrices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_models import Family

from deployment.conftest import TINY
from fedcert.bundles import Bundle
from fedcert.certificates import Certificate
from fedcert.deployment import Deployment
from fedcert.models import load_base_model
from fedcert.simulations.deployed_example import digits_on_nodes
from fedcert.verification import verify
from fedcert.warm_start import PROVENANCE, merged_folder

pytestmark = pytest.mark.deploy

WARM: dict[str, str | int | float] = {
    # Nothing is averaged or pooled afterwards: one node trains, and one is certified.
    "method": "local",
    "personal.steps": 4,
    "server.min-pool": 0,
    "warm-start.rounds": 1,
    "warm-start.steps": 2,
    "warm-start.personal-steps": 2,
    "warm-start.rank": 2,
    "warm-start.weights": "equal",
    "warm-start.epsilon": 8.0,
    "warm-start.clip": 0.01,
}


def test_certificates_speak_of_the_base_model_that_every_node_made(
    tmp_path: Path, vit: Family
) -> None:
    folder = tmp_path.resolve()
    example = digits_on_nodes(
        folder, nodes=2, simulated=0, base=vit.folder, overrides=TINY | WARM
    )
    with Deployment(folder, example.nodes, say=lambda _: None) as deployment:
        finished = deployment.submit(example.config).wait(400)
    assert finished.status == "finished:completed"
    bundle = Bundle.load(example.output / "bundle")
    before = load_base_model(str(folder / "base-model")).digest
    assert bundle.base_digest != before
    for node in example.nodes:
        own = folder / "nodes" / node.client
        made = merged_folder(own / "warm-start", bundle.base_digest)
        notes = json.loads((made / PROVENANCE).read_text())
        assert (notes["from"], notes["digest"]) == (before, bundle.base_digest)
        assert notes["privacy"] == bundle.notes["warm_start"]
        if node.role == "upstream":
            continue
        certificate = Certificate.read(example.output / "certificates" / f"{node.client}.json")
        base = load_base_model(str(made), num_labels=len(bundle.labels), labels=bundle.labels)
        found = verify(certificate, bundle=bundle, adapter=own / "adapter", base=base)
        assert found.passed, found.reasons
