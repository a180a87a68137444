"""``make bench-warm-start`` on a tiny encoder: it runs, and goes on where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from models.tiny_encoders import save_sentence_encoder
from tiny_intents import write_requests

from fedcert.cache import cache_folder
from fedcert.simulations.benchmarks import warm_start
from fedcert.simulations.benchmarks.federations import only_remembered
from fedcert.simulations.benchmarks.privacy_trunk import measured_trunks
from fedcert.simulations.benchmarks.warm_start_page import _goals, _lost, warm_start_page
from fedcert.simulations.benchmarks.warm_start_site import WarmCell, WarmSite
from fedcert.simulations.benchmarks.warm_start_tried import TRIED, tried_rows, untried


def _cell(tmp_path: Path) -> WarmCell:
    options = {
        "ways": 3,
        "training_size": 20,
        "test_size": 9,
        "data": str(write_requests(tmp_path)),
        "base": str(save_sentence_encoder(tmp_path / "encoder")),
    }
    return WarmCell(
        scenario="tiny_intents:TinyNamedIntents",
        setting="mixed",
        sizes=(8,),
        new=2,
        fitted=10,
        planners=2,
        planning_size=16,
        candidates=4,
        options=options,
        training={"steps": 2, "batch_size": 8},
        kinds=("default", "tuned_head 0.5"),
        warm={"rounds": 1, "clients_per_round": 2, "rank": 2, "steps": 1, "personal_steps": 1},
        trunk=12,
        methods=("none", "meta", "central", "private"),
    )


def test_it_measures_and_finds_again_what_it_measured(tmp_path: Path) -> None:
    cell = _cell(tmp_path)
    record = warm_start.measure([cell], [0], ["none", "standard", "meta", "private"])
    by_method = {row["warm_start"]: row for row in record["table"]}
    assert by_method["none"]["rounds"] == by_method["none"]["bytes_up"] == 0
    assert by_method["meta"]["rounds"] == 1
    # Two clients, every linear module of three layers: 4 of 16 and 16, one up, one down.
    assert by_method["meta"]["bytes_up"] == 2 * 4 * 2 * 3 * (4 * 16 + 32 + 16)
    assert by_method["private"]["epsilon"] == 8.0
    assert by_method["meta"]["epsilon"] is None
    # Two more than harvest adapters, and none of those who plan.
    site = WarmSite(cell, 0, "private")
    planners = site.scenario.upstream_clients[10:12]
    assert len(site.trainers) == 12
    assert not {*planners} & {*site.trainers}
    assert len(site.scenario.upstream_clients) == 14
    trained = sorted(cache_folder().rglob("trunk.safetensors"))
    with only_remembered():
        again = warm_start.measure([cell], [0], ["none", "meta", "central", "private"])
    assert again["table"] == record["table"]
    assert sorted(cache_folder().rglob("trunk.safetensors")) == trained
    assert [row["method"] for row in again["unfinished"]] == ["central"]
    page = warm_start_page(again)
    assert "central (seed 0)" in page.partition("## Not measured yet")[2]
    assert "| meta: a whole adapter is personal | 8 |" in page
    assert "12 upstream clients, of which 10 train adapters" in page
    assert "There is no row for an averaged head" in page


def test_what_was_tried_is_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = (("none", {}), ("standard", {}), ("standard", {"learning_rate": 0.5}))
    monkeypatch.setitem(cast(dict[str, Any], TRIED), _cell(tmp_path).name, tried)
    rows = list(tried_rows([_cell(tmp_path)]))
    assert [row["chosen"] for row in rows] == [False, True, False]
    assert {key for row in rows for key in row["errors"]} == {"names", "head"}
    record = warm_start.measure([], [])
    page = warm_start_page(record | {"tried": rows})
    assert "| warm start | learning_rate | names | head | chosen |" in page
    assert f"| standard | 0.01 | {rows[1]['errors']['names']:.3f} |" in page
    with only_remembered():
        assert list(tried_rows([_cell(tmp_path)])) == rows
    assert untried([_cell(tmp_path)], rows) == []
    name = _cell(tmp_path).name
    left = untried([_cell(tmp_path)], rows[:1])
    assert left == [f"2 settings of `{name}`"]
    # What is finished is shown, and what is not is named.
    page = warm_start_page(record | {"tried": rows[:1], "untried": left})
    assert f"2 settings of `{name}`, tried" in page.partition("## Not measured yet")[2]


def test_the_page_says_what_noise_costs_of_the_gain() -> None:
    def rows(n: int = 8, seed: int = 0, **certificates: float) -> list[dict[str, Any]]:
        return [
            {"n": n, "seed": seed, "warm_start": name, "certificate": value}
            for name, value in certificates.items()
        ]

    little = rows(none=0.5, meta=0.3, private=0.31)
    [line] = _lost(little)
    assert line.endswith("**Met**: 5% of 0.200 (one seed) at n = 8.")
    # Every n counts, and not the largest one alone.
    much = rows(4, none=0.5, meta=0.3, private=0.55)
    [line] = _lost(little + much)
    assert "**Missed**: 125% of 0.200 (one seed) at n = 4; 5% of 0.200 (one seed)" in line
    [line] = _lost(little + rows(seed=1, none=0.5, meta=0.4, private=0.41))
    assert line.endswith("**Met**: 7% of 0.150 ± 0.050 at n = 8.")
    nothing = rows(4, none=0.3, meta=0.4, private=0.4)
    assert "has none" in _lost(nothing)[0]
    assert "at n = 4 there is no gain; 5%" in _lost(nothing + little)[0]
    assert _lost(rows(none=0.3, meta=0.4)) == []


def test_the_page_says_which_goals_are_met_in_every_seed() -> None:
    def rows(name: str, *certificates: float) -> list[dict[str, Any]]:
        return [
            {"n": 64, "seed": seed, "warm_start": name, "certificate": value}
            for seed, value in enumerate(certificates)
        ]

    table = rows("none", 0.40, 0.38) + rows("standard", 0.37, 0.36) + rows("meta", 0.30, 0.37)
    meta, standard = _goals(table, "intents")
    assert meta.endswith("**Missed** by meta: lower by 0.100 (seed 0), 0.010 (seed 1).")
    assert "**Met** by standard" in standard
    [early] = _goals(rows("none", 0.40, 0.38) + rows("meta", 0.30), "intents")
    assert "**Met**, on the seeds so far, by meta" in early
    assert _goals(table, "digits") == []


def test_private_base_models_are_measured_by_epsilon(tmp_path: Path) -> None:
    cell = _cell(tmp_path)
    trunk = measured_trunks(seeds=[0], new=2, cell=cell)
    noised = [row for row in trunk["table"] if row["base"] == "with noise"]
    # Less noise for a larger epsilon, in the same rounds of the same clients.
    assert sorted(noised, key=lambda row: row["epsilon"]) == sorted(
        noised, key=lambda row: -row["noise_deviation"]
    )
    assert [row["base"] for row in trunk["table"]][:2] == ["as it was", "warmed up"]
    assert all(len(row["certificates"]) == len(row["errors"]) == 2 for row in trunk["table"])
    with only_remembered():
        assert measured_trunks(seeds=[0], new=2, cell=cell) == trunk
