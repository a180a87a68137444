"""``make bench-warm-start`` on a tiny encoder: it runs, and goes on where it stopped."""

from __future__ import annotations

from pathlib import Path

from models.tiny_encoders import save_sentence_encoder
from tiny_intents import write_requests

from fedcert.cache import cache_folder
from fedcert.simulations.benchmarks import warm_start
from fedcert.simulations.benchmarks.federations import only_remembered
from fedcert.simulations.benchmarks.warm_start_page import warm_start_page
from fedcert.simulations.benchmarks.warm_start_site import WarmCell


def test_it_measures_and_finds_again_what_it_measured(tmp_path: Path) -> None:
    options = {
        "ways": 3,
        "training_size": 20,
        "test_size": 9,
        "data": str(write_requests(tmp_path)),
        "base": str(save_sentence_encoder(tmp_path / "encoder")),
    }
    cell = WarmCell(
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
    )
    record = warm_start.measure([cell], [0], ["none", "meta"])
    by_method = {row["warm_start"]: row for row in record["table"]}
    assert by_method["none"]["rounds"] == by_method["none"]["bytes_up"] == 0
    assert by_method["meta"]["rounds"] == 1
    # Two clients, every linear module of three layers: 4 of 16 and 16, one up, one down.
    assert by_method["meta"]["bytes_up"] == 2 * 4 * 2 * 3 * (4 * 16 + 32 + 16)
    trained = sorted(cache_folder().rglob("trunk.safetensors"))
    with only_remembered():
        again = warm_start.measure([cell], [0], ["none", "meta", "central"])
    assert again["table"] == record["table"]
    assert sorted(cache_folder().rglob("trunk.safetensors")) == trained
    assert [row["method"] for row in again["unfinished"]] == ["central"]
    page = warm_start_page(again)
    assert "central (seed 0)" in page.partition("## Not measured yet")[2]
    assert "| meta: a whole adapter is personal | 8 |" in page
