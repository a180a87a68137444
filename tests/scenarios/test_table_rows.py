"""Rows of a user's table that are incomplete, repeated, or odd: left out aloud, or refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tiny_text import save_tiny_backbone

from fedcert.errors import DataError, SettingsError
from fedcert.messages import client_id
from fedcert.scenarios import Scenario, load_scenario

Row = dict[str, Any]


def _rows(count: int = 80) -> list[Row]:
    return [
        {
            "input": f"t {i}",
            "label": ("bad", "good")[i % 2],
            "client": f"c{i % 4}",
            "item": f"i{i}",
        }
        for i in range(count)
    ]


def _label(row: int) -> str:
    # Of clients 0 and 2 all rows have an even number.
    return ("bad", "good")[row // 4 % 2]


def _scenario(folder: Path, rows: list[Row], **options: Any) -> Scenario:
    path = folder / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    chosen = {"source": str(path), "smallest": 4, "smallest_new": 4, "new": 1} | options
    return load_scenario("table", chosen)


def _mixed(count: int = 80) -> list[Row]:
    return [row | {"label": _label(i)} for i, row in enumerate(_rows(count))]


@pytest.mark.parametrize("nothing", [None, float("nan"), "", "  "])
@pytest.mark.parametrize("column", ["input", "label", "client", "item"])
def test_incomplete_rows_are_left_out_aloud(
    column: str, nothing: object, tmp_path: Path
) -> None:
    rows = _mixed()
    for row in (6, 7, 9):
        rows[row] |= {column: nothing}
    scenario = _scenario(tmp_path, rows, item="item")
    assert {*scenario.upstream_clients, *scenario.new_clients} == {"c0", "c1", "c2", "c3"}
    assert scenario.labels == ("bad", "good")
    assert scenario.notes == (
        f"table: the column {column!r} is empty in 3 of 80 rows (line 7, for instance); they "
        "are left out",
    )


@pytest.mark.parametrize("column", ["input", "label", "client"])
def test_a_column_that_is_mostly_empty_is_refused(column: str, tmp_path: Path) -> None:
    rows = [row | ({column: None} if i >= 30 else {}) for i, row in enumerate(_mixed())]
    with pytest.raises(
        DataError, match=rf"{column}.* is empty in 50 of 80 rows \(line 31, for"
    ):
        _ = _scenario(tmp_path, rows).new_clients


def _partly_labeled() -> list[Row]:
    """Return rows of which two in three have no label; one of these repeats a labeled text."""
    rows = [row | ({"label": None} if i % 12 >= 4 else {}) for i, row in enumerate(_mixed(240))]
    rows[4] |= {"input": "T  0"}
    return rows


def test_rows_without_a_label_are_their_clients_inputs(tmp_path: Path) -> None:
    base = str(save_tiny_backbone(tmp_path / "base", "bert"))
    scenario = _scenario(
        tmp_path,
        _partly_labeled(),
        unlabeled=True,
        held_out="client=c0",
        base=base,
        max_length=8,
    )
    assert scenario.new_clients == ("c0",)
    found = scenario.unlabeled_inputs("c0")
    assert found is not None
    # But for the one whose text has a label elsewhere.
    wanted = [f"t {i}" for i in range(0, 240, 4) if i % 12 >= 4 and i != 4]
    assert list(found.inputs) == wanted
    assert found.always_wrong == len(found)
    labeled = scenario.support_examples("c0", 4), scenario.test_examples("c0")
    assert not {text for part in labeled if part for text in part.inputs} & set(wanted)
    assert scenario.unlabeled_inputs("c1") is None  # an upstream client
    assert scenario.notes[0] == (
        "table: the column 'label' is empty in 160 of 240 rows (line 5, for instance); they "
        "are inputs without labels"
    )


def test_rows_without_a_label_are_left_out_unless_they_are_wanted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'label' is empty in 160 of 240 rows"):
        _ = _scenario(tmp_path, _partly_labeled()).new_clients
    few = [row | ({"label": None} if i < 8 else {}) for i, row in enumerate(_mixed())]
    assert _scenario(tmp_path, few, held_out="client=c0").unlabeled_inputs("c0") is None
    all_labeled = _scenario(tmp_path, _mixed(), held_out="client=c0", unlabeled=True)
    assert all_labeled.unlabeled_inputs("c0") is None
    with pytest.raises(SettingsError, match="a row without one is nobody's"):
        _scenario(tmp_path, few, unlabeled=True, partition="dirichlet")
    with pytest.raises(SettingsError, match="'unlabeled' must be true or false, not 'yes'"):
        _scenario(tmp_path, few, unlabeled="yes")


def test_a_run_reads_them_and_its_certificates_name_them(tmp_path: Path) -> None:
    from fedcert.bundles import Bundle
    from fedcert.certificates import Certificate
    from fedcert.settings import RunSettings
    from fedcert.simulations.simulating import simulate
    from fedcert.verification import verify

    rows = [
        {"input": f"{('bad', 'good')[i // 12 % 2]}{i % 11} {i}", "client": f"c{i % 12}"}
        | {"label": None if i >= 240 else ("bad", "good")[i // 12 % 2]}
        for i in range(360)
    ]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    base = str(save_tiny_backbone(tmp_path / "base", "bert"))
    options = {"source": str(path), "base": base, "max_length": 8, "smallest": 9, "new": 1}
    options |= {"smallest_new": 9, "unlabeled": True, "support_share": 0.8}
    settings = RunSettings.from_mapping(
        {
            "method": "fedp2eft",
            "scenario": {"name": "table", "options": options},
            "adapter": {"rank": 2},
            "averaging": {"rounds": 1, "steps": 2, "options": {"net_rounds": 1}},
            "personal": {"steps": 2},
            "certificate": {"support_size": 12},
            "evaluation": {"baselines": False},
        }
    )
    run = simulate(settings, output=tmp_path / "run", runner="inprocess").output
    scenario = load_scenario("table", options)
    [client] = scenario.new_clients
    certificate = Certificate.read(run / "clients" / client / "certificate.json")
    assert certificate.unlabeled is not None
    assert certificate.unlabeled.count == 10
    bundle = Bundle.load(run / "bundle")
    report = verify(
        certificate,
        bundle=bundle,
        base=bundle.load_base(str(run / "base-model")),
        adapter=run / "clients" / client / "adapter",
        data=scenario.support_examples(client, 12),
        unlabeled=scenario.unlabeled_inputs(client),
    )
    assert report.passed, report.reasons
    assert "choice" in {check.name for check in report.checks}


def test_every_row_lacks_something(tmp_path: Path) -> None:
    rows = [
        row | ({"label": ""} if i % 2 else {"client": ""}) for i, row in enumerate(_mixed())
    ]
    with pytest.raises(DataError, match="every row lacks one of input, label, client"):
        _ = _scenario(tmp_path, rows).labels


def test_nothing_is_no_value_of_held_out(tmp_path: Path) -> None:
    rows = [row | {"site": "b" if row["client"] == "c1" else None} for row in _mixed()]
    assert _scenario(tmp_path, rows, held_out="site=b").new_clients == ("c1",)
    with pytest.raises(DataError, match="no row has site=None"):
        _ = _scenario(tmp_path, rows, held_out="site=None").new_clients


def test_repeated_rows_are_counted_and_so_are_their_labels(tmp_path: Path) -> None:
    rows = _mixed()
    rows += rows[:10] + [row | {"label": "ugly"} for row in rows[:5]]
    assert _scenario(tmp_path, rows).notes == (
        "table: 15 of 95 rows repeat an item of the same client and are left out; the first "
        "one counts, also for the 5 that have another label than it; so certificates are for "
        "the client's different inputs, not for how often each comes: if these are no copies, "
        "repeats = true lets all count",
    )


def test_copies_under_items_of_their_own_are_counted(tmp_path: Path) -> None:
    rows = _mixed()
    assert _scenario(tmp_path, rows, item="item").notes == ()
    rows += [row | {"item": f"copy {i}"} for i, row in enumerate(rows[3:5])]
    assert _scenario(tmp_path, rows, item="item").notes == (
        f"table: 4 of 82 rows read like a row with another 'item' ({tmp_path / 't.jsonl'}: "
        "line 4, for instance), and count as other observations, which may train as well as "
        "certify; if they are copies, leave out item",
    )


def test_clients_that_take_no_part_are_counted(tmp_path: Path) -> None:
    rows = _mixed() + [
        {"input": f"s {i}", "label": "bad", "client": f"small {i}"} for i in range(3)
    ]
    rows += [{"input": f"o {i}", "label": "bad", "client": "one label"} for i in range(9)]
    notes = _scenario(tmp_path, rows, held_out="input=t 0").notes
    assert notes == (
        "table: 3 of 8 clients take no part: they have fewer than 4 rows (`smallest`)",
        "table: 1 clients do not train: all their rows have the same label",
    )


def test_labels_that_look_the_same_are_named(tmp_path: Path) -> None:
    rows = _mixed()
    rows[0] |= {"label": "GOOD"}
    assert _scenario(tmp_path, rows).notes == (
        "table: the labels 'GOOD', 'good' differ only in case, white space, "
        "leading zeros, or Unicode form, "
        "and are different classes",
    )


def test_numbers_with_a_gap_are_the_same_numbers(tmp_path: Path) -> None:
    rows = [row | {"label": float(i // 4 % 2)} for i, row in enumerate(_rows())]
    rows[5] |= {"label": None}
    assert _scenario(tmp_path, rows).labels == ("0", "1")


def test_one_hot_labels_are_classes(tmp_path: Path) -> None:
    rows = [row | {"label": [[1, 0], [0, 1]][i // 4 % 2]} for i, row in enumerate(_rows())]
    assert _scenario(tmp_path, rows).labels == ("0", "1")
    rows[7] |= {"label": [1, 1]}
    with pytest.raises(
        DataError, match=r"line 1 holds \[1, 0\] where one word or number belongs"
    ):
        _ = _scenario(tmp_path, rows).labels


def test_the_values_of_a_regression_are_no_labels(tmp_path: Path) -> None:
    rows = [row | {"label": i / 7} for i, row in enumerate(_rows())]
    message = r"t\.jsonl: the column 'label' has 80 different labels .* no column of classes"
    with pytest.raises(DataError, match=message):
        _ = _scenario(tmp_path, rows).labels


def test_a_value_that_does_not_fit_is_named_by_its_line(tmp_path: Path) -> None:
    rows = [
        {"input": [[i, 0], [0, 0]], "label": _label(i), "client": f"c{i % 4}"}
        for i in range(80)
    ]
    rows[42]["input"][1][1] = 300
    scenario = _scenario(tmp_path, rows, held_out="client=c1")
    assert scenario.training_examples("c0").always_wrong == 0
    assert scenario.training_examples("c2").always_wrong == 1
    assert scenario.notes == (
        "table: 1 images hold NaN, an infinity, or values outside [0, 255] (line 43, for "
        "instance); each counts as an error",
    )
    for row in rows[2::4]:
        row["input"][1][1] = float("nan")
    scenario = _scenario(tmp_path, rows, held_out="client=c1")
    with pytest.raises(DataError, match=r"table: .*t\.jsonl: line \d+ holds NaN .* 20 of 20"):
        scenario.training_examples("c2")


@pytest.mark.parametrize(
    ("option", "hint"),
    [("inputs", "; did you mean 'input'"), ("colour", ""), ("Label", "; did you mean 'label'")],
)
def test_an_unknown_option_lists_the_options(option: str, hint: str) -> None:
    message = f"it has no option {option!r}, but alpha, base, .*, upstream{hint}"
    with pytest.raises(SettingsError, match=f"{message}{re.escape('?') if hint else '$'}"):
        load_scenario("table", {"source": "x", option: "y"})


def test_a_run_says_what_is_left_out(tmp_path: Path) -> None:
    from fedcert.runs.progress import Viewer
    from fedcert.settings import RunSettings
    from fedcert.simulations.simulating import simulate

    class Listener(Viewer):
        said: list[str] = []  # noqa: RUF012

        def on_note(self, text: str) -> None:
            self.said.append(text)

    rows = [
        {"input": f"good{i % 9} {i}", "label": _label(i), "client": f"c{i % 12}"}
        for i in range(360)
    ]
    rows[17] |= {"client": None}
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    base = str(save_tiny_backbone(tmp_path / "base", "bert"))
    options = {"source": str(path), "base": base, "max_length": 8, "smallest": 9, "new": 1}
    settings = RunSettings.from_mapping(
        {
            "scenario": {"name": "table", "options": options | {"smallest_new": 9}},
            "adapter": {"rank": 2},
            "training": {"steps": 2},
            "prior": {"kind": "gaussian"},
            "certificate": {"candidates": 10, "support_size": 8},
            "server": {"min_pool": 10},
            "evaluation": {"baselines": False},
        }
    )
    simulate(settings, output=tmp_path / "run", runner="inprocess", listeners=[Listener()])
    expected = "NOTE: table: the column 'client' is empty in 1 of 360 rows"
    assert sum(text.startswith(expected) for text in Listener.said) == 1
    assert expected in (tmp_path / "run" / "events.jsonl").read_text()


def test_names_that_cannot_be_ids_are_told_with_theirs(tmp_path: Path) -> None:
    rows = [
        row | {"client": "Firma 3 \u00c4/\u00d6"} if row["client"] == "c3" else row
        for row in _mixed()
    ]
    scenario = _scenario(tmp_path, rows)
    known = client_id("Firma 3 \u00c4/\u00d6")
    assert known in {*scenario.upstream_clients, *scenario.new_clients}
    [note] = [note for note in scenario.notes if "SHA-256" in note]
    assert f"'Firma 3 \u00c4/\u00d6' is {known}" in note
    assert not [note for note in _scenario(tmp_path, _mixed()).notes if "SHA-256" in note]


def test_repeated_rows_count_where_they_are_observations(tmp_path: Path) -> None:
    rows = _mixed()
    often = [rows[0] | {"input": "again"} for _ in range(40)]
    once = _scenario(tmp_path, rows + often, held_out="input=again")
    assert any("repeats = true lets all count" in note for note in once.notes)
    base = str(save_tiny_backbone(tmp_path / "base", "bert"))
    marked = {"held_out": "input=again", "base": base}
    every = _scenario(tmp_path, rows + often, repeats=True, **marked)
    assert not any("repeat" in note for note in every.notes)
    assert (once.duplicates_are_real, every.duplicates_are_real) == (False, True)
    [client] = every.new_clients
    tests = every.test_examples(client)
    assert tests is not None
    sides = [list(every.support_examples(client, 20).inputs), list(tests.inputs)]
    # As draws of what the client meets they are on both sides.
    assert all(side.count("again") >= 5 for side in sides)
    with pytest.raises(SettingsError, match="leave out item or repeats"):
        _scenario(tmp_path, rows, item="input", repeats=True)
