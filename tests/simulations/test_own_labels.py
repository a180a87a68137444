"""A run whose clients have labels of their own, from training to certificates and report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from models.tiny_encoders import save_encoder

from fedcert.bundles import Bundle
from fedcert.certificates import Certificate
from fedcert.models import with_label_names
from fedcert.scenarios import load_scenario
from fedcert.simulations.simulating import simulate
from fedcert.verification import verify

from .federation import tiny_settings

pytestmark = pytest.mark.filterwarnings("ignore:the labels")


def test_clients_with_labels_of_their_own_are_certified(tmp_path: Path) -> None:
    source = save_encoder(tmp_path / "source", "bert")
    base = with_label_names(source, tmp_path / "base", pooling="mean")
    settings = tiny_settings(
        scenario__name="tiny_names:TinyNames",
        scenario__options__base=str(base),
        training__learning_rate=0.05,
    )
    simulate(settings, output=tmp_path / "run", runner="inprocess")
    bundle = Bundle.load(tmp_path / "run" / "bundle")
    scenario = load_scenario(settings.scenario.name, settings.scenario.options)
    assert bundle.labels == ()
    for client in scenario.new_clients:
        folder = tmp_path / "run" / "clients" / client
        certificate = Certificate.read(folder / "certificate.json")
        assert certificate.labels == scenario.labels_of(client)
        assert certificate.protocol is not None
        size = settings.certificate.support_size
        examples = scenario.support_examples(client, size)
        report = verify(
            certificate,
            bundle=bundle,
            adapter=folder / "adapter",
            data=examples,
            base=bundle.load_base(str(base)),
        )
        assert report.passed, report.reasons
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["chance"] == 0.5
    assert all(row["verified"] for row in results["clients"])
