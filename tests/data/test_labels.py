"""Labels: what is missing, numbered otherwise, or no class at all never becomes a class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcert.data import TextInputs, read_examples
from fedcert.data.cells import is_missing, word
from fedcert.data.labels import alike_labels, class_names, encode_labels
from fedcert.errors import DataError, RowError

TEXTS = TextInputs(max_length=8, tokenizer_digest="0" * 64)


@pytest.mark.parametrize(
    "cell", [None, float("nan"), np.float32("nan"), np.datetime64("NaT"), "", " \t", b" "]
)
def test_cells_that_hold_nothing(cell: object) -> None:
    assert is_missing(cell)
    with pytest.raises(
        RowError, match="example 2 has no label; the labels of this task are a, b"
    ):
        encode_labels(["a", cell], ["a", "b"])


@pytest.mark.parametrize("cell", ["NA", "None", "nan", "null", 0, 0.0, False, [], "-"])
def test_words_and_zeros_hold_something(cell: object) -> None:
    assert not is_missing(cell)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [(1.0, "1"), (np.float32(2), "2"), (np.int8(3), "3"), (0.5, "0.5"), (" a ", "a"),
     (True, "True"), (b"x", "x"), (np.str_("y "), "y"), ("1.0", "1.0"), (float("inf"), "inf")],
)  # fmt: skip
def test_words(cell: Any, expected: str) -> None:
    assert word(cell) == expected


@pytest.mark.parametrize(
    ("cells", "labels", "message"),
    [
        (["1", "0"], list("12345"), "2 has the unknown label '0'; .* are 1, 2, 3, 4, 5$"),
        ([0, 1], ["1", "2"], "1 has the unknown label '0'"),
        ([0, 3], ["1.0", "2.0"], "1 has the unknown label '0'"),
        ([1, 0], ["one", "2"], "1 has the unknown label '1'"),
        (["GOOD"], ["bad", "good"], "unknown label 'GOOD'.*; did you mean 'good'"),
        (["01"], ["0", "1"], "unknown label '01'.*; did you mean '1'"),
        (["1.0"], ["0", "1"], "unknown label '1.0'.*; did you mean '1'"),
        (["go od"], ["bad", "good"], "did you mean 'good'"),
        (["gooD!"], ["bad", "good"], "did you mean 'good'"),
        (["2"], ["bad", "good"], "unknown label '2'"),
        (["spa\u0308ter"], ["bald", "sp\u00e4ter"], "did you mean .*another Unicode form"),
        (["-1"], ["bad", "good"], "unknown label '-1'"),
        ([0.5], ["bad", "good"], "unknown label '0.5'"),
        ([["bad"]], ["bad", "good"], r"holds \['bad'\] where one word or number belongs"),
        ([[0, 1], [1, 1]], ["bad", "good"], r"example 1 holds \[0, 1\]"),
        ([[0, 1, 0]], ["bad", "good"], "one-hot label of 3 classes; the task has 2"),
        (["good"] * 9 + ["GOOD"], ["bad", "good"], "10 has the unknown label 'GOOD'"),
        (["x"], [f"class {i}" for i in range(50)], "class 19 and 30 more"),
    ],
)
def test_labels_that_are_refused(cells: list[Any], labels: list[str], message: str) -> None:
    with pytest.raises(RowError, match=message):
        encode_labels(cells, labels)


@pytest.mark.parametrize(
    ("cells", "labels", "expected"),
    [
        ([1.0, 0.0], ["0", "1"], [1, 0]),
        ([1.0, 0.0], ["0.0", "1.0"], [1, 0]),
        ([0, "mine", "1"], ["other", "mine"], [0, 1, 1]),
        (np.eye(2)[[1, 0]], ["bad", "good"], [1, 0]),
        ([[False, True], [True, False]], ["1", "0"], [0, 1]),
    ],
)
def test_labels_that_are_taken(cells: Any, labels: list[str], expected: list[int]) -> None:
    assert encode_labels(cells, labels).tolist() == expected


@pytest.mark.parametrize(
    "names",
    [
        [f"{value / 7:.4f}" for value in range(610)],
        [f"{value % 40 / 8}" for value in range(960)],
        [f"comment number {value}" for value in range(100)],
        [str(value) for value in range(22)],
    ],
    ids=["regression", "rounded", "texts", "ids"],
)
def test_values_that_are_no_classes(names: list[str]) -> None:
    with pytest.raises(
        DataError, match=r"different labels .*no column of classes; fedcert cert"
    ):
        class_names(names)


@pytest.mark.parametrize(
    "names",
    [["a", "b"], [str(v % 150) for v in range(600)], ["0.5", "1.5"] * 9, list("abcdef")],
)
def test_values_that_are_classes(names: list[str]) -> None:
    assert class_names(names) == tuple(sorted(set(names)))


def test_one_label_is_no_task() -> None:
    with pytest.raises(DataError, match=r"only the labels \['a'\]"):
        class_names(["a", "a"])


def test_labels_that_a_person_would_take_for_the_same() -> None:
    labels = ["good", "GOOD", "bad", "0", "01", "1", "1.0", "very bad", "Very  Bad", "2"]
    groups = [("good", "GOOD"), ("01", "1", "1.0"), ("very bad", "Very  Bad")]
    assert alike_labels(labels) == groups
    assert alike_labels(["spa\u0308ter", "sp\u00e4ter"]) == [("spa\u0308ter", "sp\u00e4ter")]
    assert alike_labels(["good", "bad", "0", "10"]) == []


@pytest.mark.parametrize("label", [None, float("nan"), "", " "])
def test_a_device_refuses_an_example_without_a_label(label: object, tmp_path: Path) -> None:
    rows = [{"input": f"t{i}", "label": "good"} for i in range(5)]
    rows.append({"input": "t", "label": label})  # type: ignore[dict-item]
    (tmp_path / "t.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=r"line 11 has no label; the labels .* are good, bad"):
        read_examples(tmp_path / "t.jsonl", spec=TEXTS, labels=("good", "bad"))


def test_a_device_names_the_line_of_a_missing_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('input,label\n"a\nb",good\n  ,bad\n')
    with pytest.raises(DataError, match="line 4 is an empty text"):
        read_examples(tmp_path / "t.csv", spec=TEXTS, labels=("good", "bad"))
    (tmp_path / "t.jsonl").write_text('{"input": null, "label": "good"}')
    with pytest.raises(DataError, match="line 1 holds nothing where a text belongs"):
        read_examples(tmp_path / "t.jsonl", spec=TEXTS, labels=("good", "bad"))
