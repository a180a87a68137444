"""Sweeps: which clients and adapters a point takes, and the page."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedcert.errors import SettingsError
from fedcert.simulations.benchmarks import sweeps
from fedcert.simulations.benchmarks.sweep_cases import CASES, Site
from fedcert.simulations.benchmarks.sweeps import LOCAL, RECIPES, Setting, measure, settings
from fedcert.simulations.benchmarks.sweeps_page import sweeps_page

DIGIT = 0
CASE = replace(CASES["digits"], clients=3)


class _Sets:
    """Clients whose sets are known; no data."""

    upstream_clients = tuple(f"u{i}" for i in range(6))
    new_clients = tuple(f"n{i}" for i in range(8))

    def mine(self, client: str) -> tuple[int, ...]:
        return (DIGIT, 5) if int(client[1:]) % 2 else (4, 5)


class _Federation:
    """Adapter i is all i; how many were asked for is kept."""

    asked: int | None = None

    def __init__(self, scenario: object) -> None:
        self.scenario = scenario

    def pool(self, *, first: int) -> np.ndarray:
        self.asked = first
        return np.arange(6.0)[:first, None] * np.ones((first, 3))


def _site(case: object = CASE, scenario: object = None) -> Site:
    site = Site(case, 0)  # type: ignore[arg-type]
    vars(site)["federation"] = _Federation(scenario or _Sets())
    return site


@pytest.mark.parametrize(("held_out", "rows"), [(False, [0, 1, 2]), (True, [0, 2, 4])])
def test_a_shifted_pool_has_nobody_with_the_held_out_digit(
    held_out: bool, rows: list[int]
) -> None:
    site = _site()
    assert site.pool(3, held_out=held_out)[:, 0].tolist() == rows
    # What is not needed is not trained.
    assert vars(site)["federation"].asked == rows[-1] + 1


def test_new_clients_are_those_that_have_the_digit_or_do_not() -> None:
    site = _site()
    found = {having: site.new_clients(having=having) for having in (None, True, False)}
    assert found == {
        None: ["n0", "n1", "n2"],
        True: ["n1", "n3", "n5"],
        False: ["n0", "n2", "n4"],
    }


def test_who_is_measured_is_in_no_pool() -> None:
    class Upstream:
        upstream_clients = ("ibo-00", "eng-00", "ibo-01", "sna-03", "eng-01")

    class New:
        new_clients = ("ibo-01", "sna-03", "pcm-00")

    site = _site(CASES["topics"], Upstream())
    vars(site)["scenario"] = New()
    assert site.pool(9, held_out=False)[:, 0].tolist() == [0, 1, 4]
    assert site.pool(9, held_out=True)[:, 0].tolist() == [1, 4]
    assert site.new_clients(having=True) == list(New.new_clients)


def test_every_sweep_varies_one_thing() -> None:
    shifted = {"prior", "held_out", "having"}
    varied = {
        "candidates": {"prior", "candidates"},
        "rank": {"rank"},
        "pool": {"prior", "pool"},
        "tied": {"rank", "tied"},
        "digit": shifted,
        "domain": shifted,
        "languages": shifted,
    }
    bases: dict[str, Setting] = {}
    for point in settings():
        first = replace(
            point, **{name: getattr(Setting("", ""), name) for name in varied[point.sweep]}
        )
        base = bases.setdefault(point.sweep, replace(first, value=""))
        assert replace(first, value="") == base
    assert set(bases) == set(varied)
    defaults = Setting("", "")
    for name in ("candidates", "rank", "pool", "digit"):
        assert replace(bases[name], sweep="") == defaults


def test_rows_are_means_over_clients_and_the_seeds_of_the_case(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def rows(point: sweeps._Point) -> list[tuple[str, str, float, float]]:
        if point._setting.scenario == "topics":
            raise SettingsError("no news here")
        seed = point._seed
        return [("a", name, 0.2 + seed, 0.1) for name in (*RECIPES, LOCAL)] * 2

    monkeypatch.setattr(sweeps._Point, "rows", rows)
    points = [
        Setting("rank", "2", rank=2),
        Setting("domain", "never upstream", scenario="intents"),
        *(Setting("languages", "upstream too", prior, scenario="topics") for prior in "ab"),
    ]
    said: list[str] = []
    table, missing = measure(points, [0, 1, 2], said.append)
    assert missing == {"topics": "no news here"}
    assert said.count("left out: no news here") == 1
    assert [row["recipe"] for row in table] == [*RECIPES, LOCAL] * 2
    by_sweep = {row["sweep"]: row for row in table}
    assert by_sweep["rank"]["certificate"] == pytest.approx(1.2)
    assert by_sweep["rank"]["clients"] == 6
    assert by_sweep["domain"]["certificate"] == pytest.approx(0.7)
    assert by_sweep["domain"]["seeds"] == [0, 1]
    assert by_sweep["domain"]["se"] == pytest.approx(1 / 3**0.5 / 2)
    record = {
        "seeds": [0, 1, 2], "n": 64, "delta": 0.05, "missing": missing, "table": table,
        "held_out": {name: list(case.held_out) for name, case in CASES.items()},
        "defaults": {"candidates": 1000, "rank": 4, "pool": 128},
        "machine": {"cores": 2, "cpu": "a processor"},
    }  # fmt: skip
    page = sweeps_page(record)
    assert "## Rank of the adapters\n\nScenario `digits`, seeds 0, 1, 2. Each rank" in page
    assert "Scenario `intents`, seeds 0, 1. The same with the domain *banking*." in page
    assert "Left out here: `topics` (no news here)." in page
    cell = "0.700 ± 0.289 (0.100)"
    assert f"| diffusion | never upstream | {' | '.join([cell] * 4)} | 4 |" in page


def test_tied_rows_compare_the_same_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe that gains in all clients pays; one that gains in some shows no difference."""

    def rows(point: sweeps._Point) -> list[tuple[str, str, float, float]]:
        tied, found = point._setting.tied, []
        for number, own in enumerate((0.3, 0.5, 0.7)):
            gains = {"union": -0.1, "hybrid 0.25": 0.1 * (number - 1), LOCAL: 0.2}
            for name in (*RECIPES, LOCAL):
                gain = gains.get(name, 0.0) * (1 + 0.1 * number) if tied else 0.0
                found.append((f"n{number}", name, own + gain, 0.1))
        return found

    monkeypatch.setattr(sweeps._Point, "rows", rows)
    monkeypatch.setattr(sweeps._Point, "size", lambda point: (162, 6 + point._seed))
    points = [point for point in settings() if point.sweep == "tied" and point.rank == 4][:2]
    table, _ = measure(points, [0, 1], lambda _line: None)
    by_recipe = {row["recipe"]: row for row in table if row["tied"]}
    assert by_recipe["union"]["change"] == pytest.approx(-0.11)
    assert by_recipe["posterior_split 0.5"]["change"] == 0
    assert [row["change"] for row in table if not row["tied"]] == [0.0] * 4
    part = {
        "table": table,
        "machine": {"cores": 1, "cpu": "new"},
        "versions": {},
        "missing": {},
    }
    kept = {
        "n": 64, "delta": 0.05, "missing": {"topics": "no news"}, "parts": {},
        "held_out": {name: list(case.held_out) for name, case in CASES.items()},
        "defaults": {"candidates": 1000, "rank": 4, "pool": 128},
        "machine": {"cores": 2, "cpu": "old"},
        "table": [
            {**row, "sweep": sweep, "value": "old"}
            for sweep in ("pool", "tied", "digit")
            for row in table[:4]
        ],
    }  # fmt: skip
    record = sweeps._beside(kept, part)
    assert list(dict.fromkeys(row["sweep"] for row in record["table"])) == [
        "pool", "tied", "digit",
    ]  # fmt: skip
    assert [row for row in record["table"] if row["sweep"] == "tied"] == table
    assert (record["machine"]["cpu"], record["parts"]["tied"]["machine"]["cpu"]) == (
        "old", "new",
    )  # fmt: skip
    page = sweeps_page(record)
    assert "Machine: 2 cores (old). Sweeps that were measured apart say on which." in page
    assert "Scenario `digits`, seeds 0, 1. Machine: 1 cores (new). With `adapter.tied`" in page
    assert "| diffusion | rank 4, 4 shared | 162 | 6, 7 | 0.390" in page
    assert (
        "a tied space pays at rank 4, 4 shared (union); it costs at rank 4, 4 shared " in page
    )
    assert f"shared ({LOCAL}). Elsewhere it makes no difference that shows." in page
    assert (
        "union 0.500 ± 0.073 (rank 4, an R of each) against 0.390 ± 0.069 (rank 4, 4 shared);"
        in page
    )
