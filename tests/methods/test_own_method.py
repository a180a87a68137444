"""The method of docs/methods.md, as written there."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from extending.blocks import blocks
from simulations.federation import CLIENTS

from fedcert.bundles import Bundle
from fedcert.certificates import Certificate
from fedcert.errors import SettingsError
from fedcert.methods import METHODS, method_from_config
from fedcert.scenarios import load_scenario
from fedcert.simulations.simulating import simulate
from fedcert.verification import verify

from .test_launched import quick

FILES = blocks("methods.md", "file")


def test_a_method_of_ones_own_learns_by_its_own_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        settings = quick(
            "median", imports="median_method", averaging__options__way=0.25, seed=1
        )
        simulation = simulate(settings, output=tmp_path / "run", runner="inprocess")
        bundle = Bundle.load(simulation.output / "bundle")
        folder = simulation.output / "clients" / CLIENTS[-1]
        certificate = Certificate.read(folder / "certificate.json")
        scenario = load_scenario(settings.scenario.name, {})
        found = verify(
            certificate,
            bundle=bundle,
            adapter=folder / "adapter",
            data=scenario.support_examples(CLIENTS[-1], 32),
            base=bundle.load_base(str(scenario.base_model())),
        )
        assert found.passed, found.reasons
        assert any("choice" in check.name for check in found.checks if check.passed)
        assert np.abs(certificate.adapter_vector - bundle.prior.center()).max() > 1e-3
        known = importlib.import_module("median_method").Median
        assert method_from_config(bundle.notes["method"]) == known.from_config(
            bundle.notes["method"]
        )
    finally:
        METHODS.pop("median", None)
        sys.modules.pop("median_method", None)
    with pytest.raises(SettingsError, match="unknown method 'median'"):
        method_from_config(bundle.notes["method"])
