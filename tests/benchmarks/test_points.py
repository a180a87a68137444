"""``make bench-points`` on a tiny encoder: every part runs, and the page says what it found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from models.tiny_encoders import save_sentence_encoder
from tiny_intents import write_requests

from fedcert.simulations.benchmarks import points
from fedcert.simulations.benchmarks.named_site import Cell
from fedcert.simulations.benchmarks.points_page import points_page

NAMES = ("depth-2", "int8", "full")


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    encoder = save_sentence_encoder(tmp_path_factory.mktemp("encoder"))
    options = {
        "ways": 3,
        "training_size": 24,
        "test_size": 9,
        "data": str(write_requests(tmp_path_factory.mktemp("data"))),
        "base": str(encoder),
    }
    cell = Cell(
        scenario="tiny_intents:TinyNamedIntents",
        setting="mixed",
        sizes=(16,),
        new=2,
        fitted=12,
        planners=2,
        candidates=4,
        options=options,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(points, "POINTS", {name: points.POINTS[name] for name in NAMES})
        return points.measure(cell, 0)


def test_each_client_is_certified_at_each_point(record: dict[str, Any]) -> None:
    assert [row["point"] for row in record["table"]] == [*NAMES, *NAMES]
    for row in record["table"]:
        # A part of delta says less than all of it, and beside a promise less again.
        assert row["bound_alone"] <= row["bound"] <= row["issued"]
    assert {name: cost["layers"] for name, cost in record["costs"].items()} == {
        "depth-2": 2,
        "int8": 3,
        "full": 3,
    }
    assert record["costs"]["int8"]["mib"] <= record["costs"]["full"]["mib"]
    for row in record["exits"]:
        assert row["said"]["threshold"] == record["threshold"]


def test_the_page_has_a_row_for_each_point_and_the_exit(record: dict[str, Any]) -> None:
    text = points_page(record)
    assert all(f"| {name} | " in text for name in (*NAMES, "best of 3 by its bound"))
    assert "2 new clients with n = 16" in " ".join(text.split())
    assert "| share that goes on | " in text


def test_without_figures_the_page_says_how_to_all_the_same() -> None:
    assert "## How to" in points_page({})
    assert "## Measured" not in points_page({})
    root = Path(__file__).resolve().parents[2]
    head = points_page({}).rstrip()
    assert (root / "docs" / "points.md").read_text(encoding="utf-8").startswith(head)
