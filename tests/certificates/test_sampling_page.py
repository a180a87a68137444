"""The table of docs/theory.md about handlings: rendered from its record, misses marked."""

from __future__ import annotations

import json
from pathlib import Path

from fedcert.simulations.benchmarks import publishing
from fedcert.simulations.benchmarks.sampling_page import measured, table


def test_the_table_marks_what_is_not_honest_and_takes_the_worst_world() -> None:
    rows = list(measured(200))
    rendered = table({"episodes": 200, "delta": 0.05, "table": rows})
    for row in rows:
        assert f"| {row['subject']} | {row['handling']} | " in rendered
    copied = [r for r in rows if r["handling"] == "each row is copied four times"]
    worst = max(r["violations"] for r in copied if r["subject"] == "split") / 200
    assert f"**{worst:.3f}**" in rendered


def test_the_page_is_rendered_from_the_record() -> None:
    root = Path(publishing.__file__).resolve().parents[2]
    results = root / "simulations" / "benchmarks" / "results" / "sampling.json"
    page = (root / "docs" / "theory.md").read_text(encoding="utf-8")
    record = json.loads(results.read_text(encoding="utf-8"))
    assert publishing.between_markers(page, "sampling", table(record)) == page
