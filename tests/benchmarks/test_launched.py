"""The launched methods' benchmark, at a size that shows that all of it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulations.federation import SCENARIO

from fedcert.simulations.benchmarks import launched, launched_page
from fedcert.simulations.benchmarks.launched_costs_page import costs
from fedcert.simulations.benchmarks.launched_record import launched_record

TINY = {
    "adapter.rank": 2,
    "training.steps": 10,
    "averaging.rounds": 2,
    "averaging.steps": 3,
    "certificate.support_size": 32,
}


def test_rows_limits_refusals_and_what_pull_and_keep_trade(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launched, "CASES", (launched.Case(SCENARIO, {}, TINY),))
    monkeypatch.setattr(launched, "PULLS", (0.01, 100.0))
    monkeypatch.setattr(launched, "remembered", lambda _kind, _identity, compute: compute())
    methods = [f"--method={name}" for name in ("fedavg-local", "local", "zero-shot")]
    launched.main([*methods, "--seeds", "0", "--output", str(tmp_path)])
    record = json.loads((tmp_path / "launched.json").read_text())
    rows = record["table"]
    assert [row["method"] for row in rows] == ["fedavg-local", "local"]
    assert all(row["verified"] and row["clients"] == 2 for row in rows)
    assert [entry["method"] for entry in record["refused"]] == ["zero-shot"]
    # What fewer labels would certify, up to the certificates themselves.
    assert all([each["n"] for each in row["by_n"]] == [8, 16, 32] for row in rows)
    assert all(row["by_n"][-1]["certificate"] == row["certificate"] for row in rows)
    assert row_limits(rows) == [min(pair) for pair in zip(*own_limits(rows), strict=True)]
    # Only where the server averages does an upstream client send anything.
    assert rows[0]["up_bytes"] > 0 == rows[1]["up_bytes"]
    trade = {(row["pull"], row["keep"]): row for row in record["trade"]}
    assert len(trade) == 2 * len(launched.KEEPS)
    # A strong pull leaves everybody the same adapter, whatever is kept of it.
    held = [trade[100.0, keep]["error"] for keep in launched.KEEPS]
    assert max(held) - min(held) < 0.05
    assert rows[0]["phases"]["average with the clients"] > 0
    page = (tmp_path / "launched.md").read_text()
    assert "| seeds timed | learn | fit | plan |" in page
    assert "`zero-shot` is not for this base model." in page
    assert f"figures/launched-{SCENARIO}-trade.svg" in page


def test_the_page_counts_labels_for_each_target() -> None:
    def row(seed: int, *bounds: float) -> dict[str, Any]:
        by_n = [
            {"n": n, "certificate": bound, "limit": 0.05}
            for n, bound in zip((16, 32, 64), bounds, strict=True)
        ]
        return {"method": "a", "seed": seed, "bounds": [bounds[-1], 0.14], "by_n": by_n}

    one = row(0, 0.3001, 0.2, 0.13)
    # Bounds are rounded up. 0.2 may be 0.21: two standard errors over clients are 0.01.
    assert (
        launched_page._curve([one]) == "| a | 0.301 | 0.200 | 0.130 ± 0.005 | 32 to 64 | > 64 |"
    )
    two = [one, row(1, 0.32, 0.2, 0.1)]
    assert launched_page._curve(two).endswith("| 32 | 64 to > 64 |")
    *_, last, _ = launched_page._by_n([two])
    # Nothing that the adapters learned from is counted: no labels reach a target.
    assert last == "| *limit of n = 64's adapters* | 0.050 | 0.050 | 0.050 | - | - |"


def test_the_page_says_how_many_clients_have_the_lowest_bound() -> None:
    bounds = np.array([0.0561, 0.0561, 0.07])
    assert launched_page._lowest(bounds) == "0.057 (2 of 3)"


def test_costs_are_means_over_the_runs_that_kept_times() -> None:
    phases = {"train upstream adapters": 30.0, "fit the prior": 4}
    run = {"method": "prior", "clients": 12, "up_bytes": 1024, "down_bytes": 2048}
    old, timed = run | {"seed": 0}, run | {"seed": 1, "phases": phases}
    never = [old | {"method": "local", "up_bytes": 0}]
    *_, prior, local, _ = costs([[old, timed], never], 32)
    assert prior == "| prior | 32 | 24 | 1 | 30 | 4 | 0 |"
    assert local == "| local | 0 | 24 | - | - | - | - |"
    assert costs([never], None)[-2] == "| local | - | 24 | - | - | - | - |"


def test_seconds_are_the_median_over_seeds() -> None:
    known = dict.fromkeys(
        ("error", "worst_decile_error", "certificate", "nonvacuous", "up_bytes", "down_bytes"),
        0.5,
    )
    rows = [
        known | {"method": "a", "elsewhere": None, "bounds": [0.5], "client_seconds": seconds}
        for seconds in (1.0, 2.0, 30.0)
    ]
    assert launched_page._mean(rows)["client_seconds"] == 2.0


def test_methods_are_compared_on_the_same_seeds() -> None:
    def row(method: str, seed: int, certificate: float) -> dict[str, Any]:
        known = dict.fromkeys(
            ("error", "worst_decile_error", "nonvacuous", "up_bytes", "down_bytes"), 0.5
        )
        at = {"n": 16, "certificate": certificate, "limit": 0.1}
        return known | {
            "method": method, "seed": seed, "n": 16, "clients": 2, "certificate": certificate,
            "bounds": [certificate] * 2, "by_n": [at], "client_seconds": 1.0, "elsewhere": None,
        }  # fmt: skip

    rows = [row("a", 0, 0.2), row("a", 1, 0.6), row("b", 0, 0.3)]
    lines = launched_page._scenario("digits", rows, {"refused": [], "trade": []})
    first, _, more = "\n".join(lines).partition("### Methods that have more seeds")
    assert "| a | 0.200 ± 0.000 |" in first
    assert "| b | 0.300 ± 0.000 |" in first
    assert "Seeds 0, with" in first
    assert "| a | 0.400 ±" in more
    assert "| b |" not in more
    assert "Seeds 0, 1, with" in more
    alone = launched_page._scenario("digits", rows[1:], {"refused": [], "trade": []})
    assert "No method has all seeds yet." in alone


def row_limits(rows: list[dict[str, Any]]) -> list[float]:
    return [each["limit"] for each in rows[0]["by_n"]]


def own_limits(rows: list[dict[str, Any]]) -> list[list[float]]:
    return [[each["own_limit"] for each in row["by_n"]] for row in rows]


def test_runs_that_were_launched_by_parts_stand_in_one_record():
    kept = _record(
        {"digits": 1, "topics": 1},
        [_run("digits", "prior", 0, 0.3), _run("topics", "prior", 0, 0.4)],
        unfinished=[("digits", "local", 0), ("digits", "zero-shot", 1)],
        refused=[{"scenario": "digits", "method": "zero-shot", "reason": "no names"}],
    )
    found = _record({"digits": 1}, [_run("digits", "local", 0, 0.2)])
    record = launched_record(found, kept, order=["digits", "topics"])
    assert [(row["scenario"], row["method"]) for row in record["table"]] == [
        ("digits", "prior"),
        ("digits", "local"),
        ("topics", "prior"),
    ]
    # The limit of a scenario is the lowest that any of its methods has, old or new.
    assert [row["by_n"][0]["limit"] for row in record["table"]] == [0.2, 0.2, 0.4]
    assert record["unfinished"] == []
    # A run that is there again takes the place of the old one.
    again = _record({"digits": 1}, [_run("digits", "prior", 0, 0.1)])
    first = launched_record(again, kept, order=["digits", "topics"])["table"][0]
    assert first["by_n"][0]["own_limit"] == 0.1


def test_runs_of_other_settings_are_not_kept():
    kept = _record({"digits": 1}, [_run("digits", "prior", 0, 0.3)])
    found = _record({"digits": 2}, [_run("digits", "local", 0, 0.2)])
    record = launched_record(found, kept, order=["digits"])
    assert [row["method"] for row in record["table"]] == ["local"]
    assert record["cases"] == [{"scenario": "digits", "rounds": 2}]


def _run(scenario, method, seed, limit):
    by_n = [{"n": 64, "certificate": 0.5, "own_limit": limit}]
    return {"scenario": scenario, "method": method, "seed": seed, "by_n": by_n}


def _record(cases, table, *, unfinished=(), refused=()):
    keys = ("scenario", "method", "seed")
    return {
        "seeds": [0],
        "cases": [{"scenario": name, "rounds": rounds} for name, rounds in cases.items()],
        "missing": {},
        "refused": list(refused),
        "unfinished": [dict(zip(keys, one, strict=True)) for one in unfinished],
        "table": table,
        "trade": [],
    }
