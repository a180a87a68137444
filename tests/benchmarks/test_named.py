"""``make bench-named`` on a tiny encoder: every part runs, resumes, and says what it found."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models.tiny_encoders import save_sentence_encoder
from tiny_intents import write_requests

from fedcert.certificates import DefaultRecipe, UnionRecipe, binomial_upper_bound
from fedcert.certificates.randomized import LEAST
from fedcert.simulations.benchmarks import named, named_methods
from fedcert.simulations.benchmarks import named_page as named_page_module
from fedcert.simulations.benchmarks.federations import only_remembered
from fedcert.simulations.benchmarks.named_gain import gain_figure, gain_section
from fedcert.simulations.benchmarks.named_methods import LIMIT, PLANNED, RANDOMIZED, certified
from fedcert.simulations.benchmarks.named_page import named_page
from fedcert.simulations.benchmarks.named_site import DELTA, Cell, Site
from fedcert.simulations.benchmarks.publishing import record_of

NEW = 3


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Cell:
    options = {
        "ways": 3,
        "training_size": 24,
        "test_size": 9,
        "data": str(write_requests(tmp_path_factory.mktemp("data"))),
        "base": str(save_sentence_encoder(tmp_path_factory.mktemp("encoder"))),
    }
    return Cell(
        scenario="tiny_intents:TinyNamedIntents",
        setting="mixed",
        sizes=(8, 16),
        new=NEW,
        some=1,
        fitted=12,
        planners=3,
        planning_size=20,
        candidates=4,
        options=options,
    )


@pytest.fixture(scope="module")
def record(cell: Cell) -> dict[str, Any]:
    return named.measure([cell], [0])


def test_rows_are_means_of_what_was_certified(record: dict[str, Any]) -> None:
    rows = {(row["method"], row["n"]): row for row in record["table"]}
    for n in (8, 16):
        for method in (PLANNED, "default", "zero-shot", LIMIT[1]):
            assert rows[method, n]["clients"] == NEW
        for method in ("union of 4", "fine-tuned from the default"):
            assert rows[method, n]["clients"] == 1  # of those that take long
        assert rows["default", n]["above_default"] == 0.0
        assert rows[PLANNED, n]["above_planned"] == 0.0
    for row in rows.values():
        assert 0 <= row["error"] <= 1
        assert 0 < row["certificate"] <= 1
        assert row["ways"] == 3
        # No bound on n examples is below that of no error at all.
        number = LEAST if row["method"] == RANDOMIZED else 1.0
        assert row["certificate"] >= binomial_upper_bound(0, row["n"], DELTA, number)
        assert row["limit"] >= binomial_upper_bound(0, row["n"], DELTA)
        assert row["violations"] <= row["clients"]
    json.dumps(record)


def test_a_run_that_stopped_goes_on(
    cell: Cell, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_args: object) -> dict[str, Any]:
        raise AssertionError("it was measured before")

    for name in ("_outcome", "_zero_shot", "_regression"):
        monkeypatch.setattr(named_methods, name, never)
    with only_remembered():
        again = named.measure([cell], [0, 1])  # of seed 1 nothing is finished
    assert "tiny_intents:TinyNamedIntents`, mixed (seeds 1)" in named_page(again)
    assert again["table"] == record["table"]
    assert again["steel"] == record["steel"]


def test_bounds_are_those_of_the_recipes(cell: Cell) -> None:
    """The union's winner is the best of the candidates, and pays for them all."""
    site = Site(cell, 0)
    client, recipe = site.client(site.measured[0]), UnionRecipe(candidates=4, delta=DELTA)
    bound, vector = certified(client, recipe, client.first(16))
    candidates = site.prior.sample(site.candidate_seed, count=4)
    wrong = client.scorer.score(candidates, client.first(16)).wrong.sum(axis=1)
    assert np.abs(candidates - vector).max(axis=1).min() < 1e-9
    assert bound == binomial_upper_bound(int(wrong.min()), 16, DELTA / 4)


def test_a_randomized_bound_takes_a_number_of_each_client(cell: Cell) -> None:
    site, plain = Site(cell, 0), DefaultRecipe(candidates=1, delta=DELTA)
    gained = set()
    for name in site.measured:
        client = site.client(name)
        examples = client.first(16)
        bound, _ = certified(client, plain, examples)
        drawn, _ = certified(client, replace(plain, randomized=True), examples)
        assert drawn < bound
        gained.add(bound - drawn)
    assert len(gained) > 1


def test_embeddings_are_those_of_the_frozen_model(cell: Cell) -> None:
    site = Site(cell, 0)
    client = site.client(site.measured[0])
    tests = client.tests
    found = client.embeddings(tests)
    inputs = client.model.task.encode(tests)
    stock = client.model.base.model.embed(**inputs)  # type: ignore[operator, union-attr]
    np.testing.assert_allclose(found, stock.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)


def test_the_regression_learns_what_can_be_told_apart() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(3, size=60)
    features = np.eye(3)[labels] + 0.1 * generator.normal(size=(60, 3))
    weights = named_methods._fitted(features[:30], labels[:30], 3)
    assert named_methods._errors(weights, features[30:], labels[30:]).mean() < 0.1
    one = named_methods._fitted(features[:1], labels[:1], 3)
    assert one.shape == (3, 4)


def test_the_page_says_which_goals_are_met(record: dict[str, Any]) -> None:
    shown = json.loads(json.dumps(record).replace("tiny_intents:TinyNamedIntents", "x"))
    text = named_page(shown)
    assert "## `x`, mixed, 3 ways" in text
    assert "Not measured yet" not in text
    assert f"of each, {NEW} new clients, a prior fitted to 12 upstream adapters" in text
    assert "The planner's menu is without fine-tuning and posterior means" in text
    assert "## STEEL in its own setting" in text
    assert "Goal, below chance for every client at every n:" in text
    assert "union of 4 against the default" in text
    assert f"| {NEW} |" in text
    as_goal = json.loads(json.dumps(shown).replace('"x"', '"named-intents"'))
    for row in as_goal["table"]:
        row["certificate"], row["above_planned"] = 0.3, -0.2
    text = named_page(as_goal)
    assert "Goal at n = 16, a planned certificate of at most 0.23: **missed** (0.300)." in text
    assert "n = 16: zero-shot by 0.200" in text
    assert "n = 16: head from names 0.5 by 0.200" in text


def test_a_plan_is_held_against_the_head_that_needs_no_federation() -> None:
    def goal(by: float) -> str:
        row = {"above_planned": -by, "above_planned_se": 0.006}
        (line,) = named_page_module._never_behind({("head from names 0.5", 16): row}, [16])
        return line.partition("standard error: ")[2]

    assert goal(0.007) == "**missed** (n = 16: head from names 0.5 by 0.007 ± 0.006)."
    near = "by no more than that behind at n = 16: head from names 0.5 by 0.005 ± 0.006"
    assert goal(0.005) == f"met (at none; {near})."
    assert goal(-0.005) == "met (at none)."


def test_bounds_are_rounded_up_and_differences_to_the_nearest() -> None:
    row = {
        "method": "default", "n": 16, "certificate": 0.1001, "se": 0.0101, "nonvacuous": 1.0,
        "error": 0.0501, "limit": 0.0201, "above_planned": 0.0301, "above_planned_se": 0.0101,
        "violations": 0, "clients": 2, "client_seconds": 0.5,
    }  # fmt: skip
    *_, line = named_page_module._table({("default", 16): row})
    assert "| 0.101 ± 0.010 | 100% | 0.050 | 0.021 | +0.030 ± 0.010 |" in line


def test_a_part_of_the_benchmark_stays_out_of_the_docs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        named.main(["--quick"])
    assert "name a folder by --output" in capsys.readouterr().err


def test_what_is_not_here_is_left_out(cell: Cell, tmp_path: Path) -> None:
    absent = replace(cell, options={**cell.options, "data": str(tmp_path)})
    record = named.measure([absent], [0])
    assert record["table"] == []
    assert "needs" in next(iter(record["missing"].values()))
    assert "Left out here" in named_page(record)


def test_the_readme_shows_what_was_measured() -> None:
    root = Path(__file__).parents[2]
    record = record_of("named")
    ((name, figure),) = gain_figure(record).items()
    shown = (root / "docs" / name).read_text(encoding="utf-8")
    labels = re.compile(r">(?:fedcert|names|logistic|test error)[^<]*<")
    assert labels.findall(shown) == labels.findall(figure)
    assert len(labels.findall(figure)) >= 3
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert f"](docs/{name})" in readme
    assert gain_section(readme, record) == readme
    section = readme.partition("<!-- gain: begin -->")[2].partition("<!-- gain: end -->")[0]
    assert "{" not in section


def test_the_readme_stays_as_it_is_until_there_are_figures() -> None:
    nothing = {"table": []}
    assert gain_figure(nothing) == {}
    assert gain_section("a readme", nothing) == "a readme"


def test_a_part_keeps_what_else_was_measured() -> None:
    def record(scenario: str, seed: int, method: str) -> dict[str, Any]:
        about = {"scenario": scenario, "setting": "", "seed": seed}
        rows = {part: [about | {"method": method}] for part in ("table", "plans", "steel")}
        cell = {"scenario": scenario, "setting": "", "new": 2}
        return {"seeds": [seed], "cells": [cell], "training": [about], **rows}

    first, other = record("one", 0, "old"), record("two", 1, "old")
    both = named._beside(first, other)
    assert both["seeds"] == [0, 1]
    assert [cell["scenario"] for cell in both["cells"]] == ["one", "two"]
    again = named._beside(both, record("one", 0, "new"))
    assert {(r["scenario"], r["method"]) for r in again["table"]} == {
        ("one", "new"), ("two", "old")
    }  # fmt: skip
    assert len(again["training"]) == len(again["plans"]) == 2
    assert named._beside({}, first) == first


def test_heads_are_compared_at_one_share() -> None:
    def row(kind: str, share: float, seed: int, certificate: float) -> dict[str, Any]:
        return {
            "method": f"head from names{kind} {share:g}", "n": 80, "seed": seed, "clients": 4,
            "certificate": certificate,
        }  # fmt: skip

    rows = [row("", 0.5, seed, 0.2 + seed / 10) for seed in range(3)]
    rows += [row(" of the default", 0.5, seed, 0.18 + seed / 10) for seed in range(3)]
    # At another share one of them has not all seeds.
    rows += [row("", 0.25, seed, 0.2) for seed in range(3)]
    rows += [row(" of the default", 0.25, 0, 0.1)]
    assert named_page_module.head_start(rows, 80) == {
        "0.5": (pytest.approx(-0.02), pytest.approx(0.0, abs=1e-9))
    }
    assert named_page_module.head_start(rows, 16) == {}
