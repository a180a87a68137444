"""`fedcert plan`: how many labels a certificate takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.conftest import Run
from fedcert.bundles import Bundle
from fedcert.planning import Plan, PlanRow, menu


@pytest.fixture(scope="session")
def planned(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipes = menu(candidates=50, delta=0.05)
    plan = Plan(
        (
            PlanRow(16, recipes[0], 0.5, 0.4, 0.6, 7),
            PlanRow(64, recipes[-1], 0.2, 0.123456, 0.3, 6),
        )
    )
    folder = tmp_path_factory.mktemp("planned") / "bundle"
    Bundle.load(bundle).with_plan(plan).save(folder)
    return folder


def test_it_says_how_many_labels_a_target_takes(run: Run, planned: Path) -> None:
    shown = run("plan", "--bundle", planned, "--target", 0.2)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.splitlines() == [
        "labels:      64",
        "recipe:      posterior_split 0.5",
        "certificate: 0.200 on average over 6 planning clients",
        "range:       0.124 to 0.300 (of single certificates: 10% and 90% quantiles)",
    ]


def test_it_says_what_a_number_of_labels_gives(run: Run, planned: Path) -> None:
    assert "certificate: 0.500 on" in run("plan", "-b", planned, "--n", 16).out
    between = run("plan", "-b", planned, "--n", 63)
    assert "labels:      16" in between.out
    assert "16 is the largest size up to 63 that was planned" in between.out


def test_it_says_whom_a_plan_for_the_tail_was_made_for(
    run: Run, bundle: Path, tmp_path: Path
) -> None:
    plan = Plan((PlanRow(16, menu(candidates=50, delta=0.05)[0], 0.3, 0.2, 0.5, 8, 0.45),))
    Bundle.load(bundle).with_plan(plan).save(tmp_path / "tail")
    shown = run("plan", "-b", tmp_path / "tail", "--n", 16)
    assert "tail:        0.450 on average over the worst quarter, which chose" in shown.out
    found = json.loads(run("plan", "-b", tmp_path / "tail", "--n", 16, "--json").out)
    assert found["tail"] == 0.45


def test_json_holds_the_row_and_nothing_else(run: Run, planned: Path) -> None:
    shown = run("plan", "-b", planned, "--n", 100, "--json")
    found = json.loads(shown.out)
    assert found.pop("recipe")["kind"] == "posterior_split"
    assert found == {"n": 64, "mean": 0.2, "low": 0.123456, "high": 0.3, "clients": 6}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--target", 0.1], "no planned size reaches 0.1: the best mean is 0.2, with 64"),
        (["--n", 15], "nothing was planned for 15 examples; the smallest size is 16"),
        (["--n", 0], "--n must be at least 1, not 0"),
        (["--target", 0], "--target must lie between 0 and 1, not 0"),
        (["--target", "nan"], "--target must lie between 0 and 1, not nan"),
        ([], "give either --target or --n"),
        (["--n", 16, "--target", 0.2], "give either --target or --n"),
    ],
)
def test_what_it_cannot_answer_is_one_line(
    run: Run, planned: Path, options: list[object], text: str
) -> None:
    shown = run("plan", "--bundle", planned, *options)
    assert (shown.code, shown.out) == (1, "")
    assert shown.err.startswith(f"error: {text}")
    assert len(shown.err.splitlines()) == 1


def test_a_bundle_without_a_plan_is_named(run: Run, bundle: Path) -> None:
    shown = run("plan", "--bundle", bundle, "--n", 16)
    assert shown.code == 1
    assert shown.err.startswith(f"error: {bundle}: the bundle has no plan; its federation")


def test_a_bundle_without_a_plan_is_as_it_always_was(bundle: Path) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text())
    assert "plan" not in manifest
    assert Bundle.load(bundle).manifest() == manifest
