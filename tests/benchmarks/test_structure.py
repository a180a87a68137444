"""The benchmark of gates, at a size that shows that all of it runs and goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from simulations.federation import SCENARIO

from fedcert.simulations.benchmarks import structure
from fedcert.simulations.benchmarks.structure_page import _cell, _whose, structure_page

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


def test_a_client_of_several_seeds_counts_once() -> None:
    def row(way: str, client: str, seed: int, error: float) -> dict[str, Any]:
        return {
            "method": way, "budget": 0.5, "client": client, "seed": seed, "error": error
        }  # fmt: skip

    rows = [row("plain", client, seed, 0.3) for client in "ab" for seed in (0, 1)]
    # By client the differences are -0.1 and -0.2, with a standard error of 0.05.
    errors = {("a", 0): 0.1, ("a", 1): 0.3, ("b", 0): 0.1, ("b", 1): 0.1}
    rows += [row("average", *key, error) for key, error in errors.items()]
    assert _cell(rows, "average", 0.5) == "0.150 (-0.150 ± 0.050)"
    assert _whose(rows, [0, 1]) == "Seeds 0, 1, with the same 2 clients in each seed."
    assert _whose(rows, [0]) == "Seed 0, 2 clients."
