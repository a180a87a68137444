"""The benchmark of gates, at a size that shows that all of it runs and goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from simulations.federation import SCENARIO

from fedcert.simulations.benchmarks import structure
from fedcert.simulations.benchmarks.structure_page import structure_page

TINY = {
    "adapter.rank": 2,
    "scenario.options.upstream": 8,
    "scenario.options.new": 2,
    "averaging.rounds": 1,
    "averaging.clients": 3,
    "averaging.steps": 2,
    "averaging.options.net_rounds": 2,
    "averaging.options.gate_steps": 2,
    "personal.steps": 4,
}


def test_ways_rates_and_going_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second time nothing is measured again; without its last part only that is."""
    kept: dict[str, Any] = {}
    measured: list[str] = []

    def remembered(_kind: str, identity: Any, compute: Any) -> Any:
        key = json.dumps(identity, sort_keys=True)
        if key not in kept:
            kept[key] = json.loads(json.dumps(compute()))
            measured.append(identity["part"])
        return kept[key]

    written: dict[str, Any] = {}
    monkeypatch.setattr(structure, "remembered", remembered)
    monkeypatch.setattr(structure, "CASES", {SCENARIO: TINY})
    monkeypatch.setattr(structure, "_RATES", (0.03, 0.1))
    monkeypatch.setattr(
        structure, "publish", lambda _name, record, _documents: written.update(record)
    )
    structure.main(["--seeds", "0"])
    rows = written["table"]
    by_way = {(row["method"], row["budget"]) for row in rows}
    assert by_way == {("shared", 0.0)} | {
        (way, budget) for way in structure._WAYS for budget in structure._BUDGETS
    }
    gates = len(written["nets"][0]["gates"])
    assert {len(row["kept"]) for row in rows if row["budget"] == 1.0} == {gates}
    assert set(written["nets"][0]["rates"]) == set(structure._WAYS)
    page = structure_page(written)
    assert f"## `{SCENARIO}`" in page
    assert "(seed 0)" in page

    drawn = [part for part in measured if part.startswith("round ")]
    assert drawn == ["round 1", "round 2", "round 3", "round 4"]
    measured.clear()
    structure.main(["--seeds", "0"])
    assert measured == []
    last = next(key for key in kept if json.loads(key)["part"] == "round 4")
    del kept[last]
    structure.main(["--seeds", "0"])
    assert measured == ["round 4"]
    assert written["table"] == rows
