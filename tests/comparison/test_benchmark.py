"""The benchmark of methods: a small run, what it keeps, and its page."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
from simulations.federation import SCENARIO

from fedcert.arrays import FloatArray
from fedcert.certificates import binomial_upper_bound
from fedcert.data import Examples
from fedcert.errors import RunError
from fedcert.methods import FederatedSettings
from fedcert.methods.traffic import Traffic
from fedcert.priors import GaussianPrior
from fedcert.simulations.benchmarks import methods, methods_bench
from fedcert.simulations.benchmarks.certificates import Case
from fedcert.simulations.benchmarks.comparison import (
    Majority,
    Method,
    Personalized,
    SplitMethod,
    Upstream,
    learned,
)
from fedcert.simulations.benchmarks.federations import only_remembered
from fedcert.simulations.benchmarks.methods import main, measure
from fedcert.simulations.benchmarks.methods_page import (
    methods_figures,
    methods_page,
)
from fedcert.simulations.benchmarks.pages import labels_needed_about
from fedcert.simulations.benchmarks.recipes import limit
from fedcert.simulations.benchmarks.workers import side_by_side

KEYS = {
    "scenario", "method", "n", "seed", "error", "worst_decile_error", "certificate",
    "nonvacuous", "limit", "up_bytes", "down_bytes", "client_seconds",
}  # fmt: skip
CASE = Case(SCENARIO, {"upstream": 14, "new": 4}, {}, new=2, planners=2)


@dataclass(frozen=True, kw_only=True)
class Own(SplitMethod):
    """A user's method: the mean of some adapters; the first variant hands out nothing."""

    name: ClassVar[str] = "own"
    sign: float = 1.0
    calls: ClassVar[list[int]] = []

    @classmethod
    def variants(cls, upstream: Upstream) -> Sequence[Self]:
        return [cls(upstream=upstream, sign=sign) for sign in (0.0, 1.0)]

    def learn(self, examples: Examples) -> FloatArray:
        self.calls.append(len(examples))
        return np.asarray(self.sign * self.upstream.pool.mean(axis=0))

    def traffic(self) -> Traffic:
        return Traffic(7, 0, 11)


@dataclass(frozen=True, kw_only=True)
class Boastful(Method):
    """Promises what it cannot keep."""

    name: ClassVar[str] = "boastful"

    def personalize(self, examples: Examples) -> Personalized:
        nothing = np.zeros((1, self.upstream.dimension))
        return Personalized(adapters=nothing, certificate=1e-6)

    def traffic(self) -> Traffic:
        return Traffic(0, 0, 0)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prior that takes no training, and federated averaging that takes one round."""
    settings = FederatedSettings(rounds=1, clients_per_round=3)
    monkeypatch.setattr(methods_bench, "CANDIDATES", 40)
    monkeypatch.setattr(methods_bench, "CHAIN_STEPS", 4)
    monkeypatch.setattr(methods_bench, "DiffusionPrior", GaussianPrior)
    monkeypatch.setattr(learned, "federated_settings", lambda _upstream: settings)


def _measured(*classes: type[Method]) -> dict[str, Any]:
    return measure([CASE], classes, seeds=[0], sizes=[8, 16])


def test_rows_have_the_agreed_keys_and_count_what_they_say() -> None:
    record = _measured(Majority, Own, Boastful)
    rows = record["table"]
    assert {row["method"] for row in rows} == {"majority", "own", "boastful"}
    assert len(rows) == 6
    assert all(set(row) >= KEYS for row in rows)
    own = next(row for row in rows if row["method"] == "own" and row["n"] == 16)
    # Both clients' bounds are B(k, 8, delta): their mean is a mean of two of these.
    bounds = [binomial_upper_bound(k, 8, 0.05) for k in range(9)]
    means = {round((a + b) / 2, 9) for a in bounds for b in bounds}
    assert round(own["certificate"], 9) in means
    assert (own["up_bytes"], own["down_bytes"]) == (7, 11)
    assert own["worst_decile_error"] >= own["error"]
    boastful = [row for row in rows if row["method"] == "boastful"]
    assert all(row["violations"] == 2 and row["nonvacuous"] == 1 for row in boastful)
    assert all(row["violations"] == 0 for row in rows if row["method"] != "boastful")


def test_the_limit_is_that_of_the_best_of_the_list() -> None:
    record = _measured(Majority)
    bench = methods_bench.MethodBench(CASE, 0, [8, 16])
    found = {
        name: [
            row["error"]
            for client in bench.scenario.new_clients[:2]
            for row in bench.risks(client)
            if row["method"] == name and row["n"] == 16
        ]
        for name in methods_bench.LIMIT_METHODS
    }
    assert all(len(errors) == 2 for errors in found.values())
    best = min(found.values(), key=lambda errors: float(np.mean(errors)))
    row = next(row for row in record["table"] if row["n"] == 16)
    assert row["limit"] == pytest.approx(limit(np.array(best), 16, 0.05))


def test_tuning_chooses_the_variant_with_the_lower_certificate() -> None:
    record = _measured(Own)
    assert {row["sign"] for row in record["chosen"]} == {1.0}


def test_what_was_measured_is_not_measured_again() -> None:
    first = _measured(Own)
    Own.calls.clear()
    assert _measured(Own)["table"] == first["table"]
    assert Own.calls == []


def test_what_is_not_finished_is_left_out_and_named() -> None:
    class Later(Majority):
        """Nobody measures it."""

        name: ClassVar[str] = "later"

    first = _measured(Own)
    with only_remembered():
        again = measure([CASE], [Own], seeds=[0, 1], sizes=[8, 16])
    assert again["table"] == first["table"]
    assert [case["seeds"] for case in again["cases"]] == [[0]]
    assert "Seeds 0. Not measured yet: 1." in methods_page(again)
    with only_remembered():
        more = measure([CASE], [Own, Later], seeds=[0], sizes=[8, 16])
    assert more["table"] == first["table"]
    assert "Not measured yet at seed 0: later." in methods_page(more)
    with only_remembered():
        none = measure([CASE], [Later], seeds=[0], sizes=[8, 16])
    assert none["table"] == []
    assert f"Not measured yet: `{SCENARIO}`." in methods_page(none)


def test_a_seed_that_lacks_methods_waits_if_another_has_them_all() -> None:
    whole = _measured(Majority, Own)
    measure([CASE], [Own], seeds=[1], sizes=[8, 16])
    with only_remembered():
        found = measure([CASE], [Majority, Own], seeds=[0, 1], sizes=[8, 16])
    assert found["table"] == whole["table"]
    assert "Seeds 0. Not measured yet: 1." in methods_page(found)


def test_tuning_clients_have_no_part_in_anything_else() -> None:
    bench = methods_bench.MethodBench(CASE, 0, [8])
    assert len(bench.tuning_clients) == CASE.planners
    assert not set(bench.tuning_clients) & set(bench.upstream.clients)
    assert len(bench.upstream.clients) == len(bench.upstream.pool)


def test_the_page_shows_every_method_and_the_labels_needed() -> None:
    record = _measured(Majority, Own)
    # Another seed in which everybody does a little worse.
    other = [
        row | {"seed": 1, "certificate": row["certificate"] + 0.1} for row in record["table"]
    ]
    page = methods_page(record | {"table": record["table"] + other})
    assert f"## `{SCENARIO}`" in page
    # In the tables of both n, and in that of labels needed.
    assert page.count("| majority |") == page.count("| own |") == 3
    assert "| method | 20% | 10% |" in page
    assert "4 clients; limit 0." in page
    assert page.count(" ± 0.050 |") == 4
    assert "nan" not in page
    figures = methods_figures(record)
    assert all(f"]({path})" in page for path in figures)
    assert all("own" in svg and "majority" in svg for svg in figures.values())


def test_the_page_says_who_is_ahead_of_fedcert() -> None:
    record = _measured(Majority, Own)
    rows = [row for row in record["table"] if row["method"] == "majority"]
    planned = [
        row | {"method": "fedcert planned", "seed": seed, "certificate": bound}
        for row in rows
        for seed, bound in ((0, 0.5), (1, 0.6))
    ]
    ahead = [
        row | {"method": "better", "seed": seed, "certificate": 0.4}
        for row in rows
        for seed in (0, 1)
    ]
    mixed = [
        row | {"method": "mixed", "seed": seed, "certificate": 0.52}
        for row in rows
        for seed in (0, 1)
    ]
    worse = [row | {"method": "worse", "certificate": 0.7} for row in rows]
    page = methods_page(record | {"table": [*planned, *ahead, *mixed, *worse]})
    compared = page.partition("| certificate | n = 8 | n = 16 |")[2].splitlines()[2:6]
    # Paired by seed: the standard error is that of the differences; one seed has none.
    assert compared[:2] == [
        "| better | -0.150 ± 0.050 | -0.150 ± 0.050 |",
        "| mixed | -0.030 ± 0.050 | -0.030 ± 0.050 |",
    ]
    assert "| worse | +0.200 | +0.200 |" in compared
    assert "Differences to" not in methods_page(record | {"table": rows})


def test_labels_needed_are_a_range_where_a_standard_error_leaves_it_open() -> None:
    knife = {32: (0.36, 0.02), 64: (0.1999, 0.02), 128: (0.13, 0.01)}
    assert labels_needed_about(knife, 0.2) == "64 to 128"
    assert labels_needed_about(knife | {64: (0.2001, 0.02)}, 0.2) == "64 to 128"
    assert labels_needed_about(knife | {64: (0.17, 0.02)}, 0.2) == "64 to 128"
    assert labels_needed_about(knife | {64: (0.15, 0.02)}, 0.2) == "64"
    assert labels_needed_about(knife | {64: (0.1999, None)}, 0.2) == "64"
    assert labels_needed_about(knife, 0.1) == "> 128"
    assert labels_needed_about(knife | {128: (0.105, 0.01)}, 0.1) == "128 to > 128"


def test_labels_from_one_seed_show_no_spread() -> None:
    record = _measured(Majority, Own)
    assert "±" not in methods_page(record).partition("## `")[2]


def test_a_part_goes_to_a_folder_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "METHODS", (Majority,))
    monkeypatch.setattr(methods, "CASES", (CASE,))
    part = ["--scenario", SCENARIO, "--seeds", "0", "--sizes", "8", "--clients", "2"]
    part += ["--workers", "1"]
    with pytest.raises(SystemExit):
        main(part)
    assert "does not go into docs/" in capsys.readouterr().err
    own = f"{__name__}:Own"
    main([*part, "--tuning", "2", "--method", own, "--output", str(tmp_path)])
    record = json.loads((tmp_path / "methods.json").read_text())
    assert [(row["method"], row["n"]) for row in record["table"]] == [
        ("majority", 8),
        ("own", 8),
    ]
    assert (tmp_path / "benchmarks.md").read_text() == methods_page(record)


def test_memory_is_what_a_client_adds() -> None:
    bench = methods_bench.MethodBench(CASE, 0, [8])
    client = bench.scenario.new_clients[0]

    @dataclass(frozen=True, kw_only=True)
    class Greedy(Majority):
        name: ClassVar[str] = "greedy"

        def personalize(self, examples: Examples) -> Personalized:
            self.held.append(np.ones(2**23))  # 64 MiB
            time.sleep(1.0)  # a busy machine looks a few times in a second, too
            self.held.clear()
            return super().personalize(examples)

        held: ClassVar[list[FloatArray]] = []

    found = bench.memory({8: Greedy(upstream=bench.upstream)}, client)
    assert 60 < found < 128


@pytest.mark.slow
def test_parts_side_by_side_leave_their_results_and_report_failures(tmp_path: Path) -> None:
    done: list[int] = []
    parts = [partial((tmp_path / name).write_text, name) for name in "abc"]
    side_by_side(parts, workers=2, on_part=done.append)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c"}
    assert done == [1, 2, 3]
    with pytest.raises(RunError, match=r"a part of the benchmark failed: .*nowhere"):
        side_by_side([partial((tmp_path / "nowhere" / "x").write_text, "x")], workers=1)


@pytest.mark.parametrize(
    ("name", "cause"),
    [("nowhere:Own", "there is no method"), ("fedcert.errors:RunError", "no subclass")],
)
def test_a_method_that_is_none_is_refused(name: str, cause: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=cause):
        main(["--method", name, "--output", str(tmp_path)])
