"""Sweeps: which clients and adapters a point takes, and the page."""

from __future__ import annotations

import numpy as np
import pytest

from fedcert.simulations.benchmarks import sweeps
from fedcert.simulations.benchmarks.sweeps import HELD_OUT, Setting, measure, settings
from fedcert.simulations.benchmarks.sweeps_page import sweeps_page


class _Sets:
    """Clients whose sets are known; no data."""

    upstream_clients = tuple(f"u{i}" for i in range(6))
    new_clients = tuple(f"n{i}" for i in range(4))

    def mine(self, client: str) -> tuple[int, ...]:
        return (HELD_OUT, 5) if int(client[1:]) % 2 else (4, 5)


class _Pool:
    scenario = _Sets()

    def pool(self) -> np.ndarray:
        return np.arange(6.0)[:, None] * np.ones((6, 3))


@pytest.fixture(autouse=True)
def _fake_federation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "_federation", lambda _seed, _rank: _Pool())


def test_a_shifted_pool_has_nobody_with_the_held_out_digit() -> None:
    for held_out, expected in ((False, {0.0, 1.0, 2.0}), (True, {0.0, 2.0, 4.0})):
        setting = Setting("shift", "x", prior="pool", pool=3, held_out=held_out)
        drawn = sweeps._Point(setting, 0).prior.sample("ab" * 32, count=200)
        assert set(drawn[:, 0].round(6)) == expected


def test_new_clients_are_those_that_have_the_digit_or_do_not() -> None:
    clients = {
        having: sweeps._Point(Setting("shift", "x", having=having), 0).clients
        for having in (None, True, False)
    }
    assert clients == {None: ["n0", "n1", "n2", "n3"], True: ["n1", "n3"], False: ["n0", "n2"]}


def test_every_sweep_varies_one_thing() -> None:
    base = Setting("", "")
    varied = {"candidates": {"prior", "candidates"}, "rank": {"rank"},
              "pool": {"prior", "pool"}, "shift": {"prior", "held_out", "having"}}  # fmt: skip
    for point in settings():
        changed = {
            name
            for name, value in vars(point).items()
            if value != getattr(base, name) and name not in {"sweep", "value"}
        }
        assert changed <= varied[point.sweep]
    assert {point.sweep for point in settings()} == set(varied)


def test_rows_are_means_over_clients_and_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(point: sweeps._Point) -> list[tuple[str, str, float, float]]:
        seed = point._seed
        return [("a", name, 0.2 + seed, 0.1) for name in sweeps.RECIPES]

    monkeypatch.setattr(sweeps._Point, "rows", rows)
    table = measure([Setting("rank", "2", rank=2)], [0, 1], lambda _text: None)
    assert [row["recipe"] for row in table] == list(sweeps.RECIPES)
    assert all(row["certificate"] == pytest.approx(0.7) for row in table)
    assert all(row["clients"] == 2 and row["se"] == pytest.approx(0.5) for row in table)
    record = {
        "scenario": "digits", "seeds": [0, 1], "n": 64, "delta": 0.05, "held_out": 0,
        "defaults": {"candidates": 1000, "rank": 4, "pool": 128}, "table": table,
        "machine": {"cores": 2, "cpu": "a processor"},
    }  # fmt: skip
    page = sweeps_page(record)
    assert "## Rank of the adapters" in page
    cell = "0.700 ± 0.500 (0.100)"
    assert f"| diffusion | 2 | {cell} | {cell} | {cell} | 2 |" in page
