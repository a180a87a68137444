"""Examples that cannot be read: they stay where they are, and count as errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_text import save_tiny_backbone

from fedcert.data import Examples, ImageInputs, TextInputs, read_examples
from fedcert.data.examples import ALWAYS_WRONG
from fedcert.data.labels import encode_labels
from fedcert.errors import DataError
from fedcert.models import load_base_model, with_task_head
from fedcert.search.scores import margins_and_losses

IMAGES = ImageInputs(channels=1, height=1, width=2, low=0.0, high=1.0)
LABELS = ("other", "mine")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> TextInputs:
    source = save_tiny_backbone(tmp_path_factory.mktemp("source"), "bert")
    base = load_base_model(str(with_task_head(source, ["bad", "good"])), num_labels=2)
    return TextInputs.of(base.name, max_length=8)


def _jsonl(folder: Path, rows: list[tuple[Any, Any]]) -> Path:
    path = folder / "data.jsonl"
    path.write_text("\n".join(json.dumps({"input": x, "label": y}) for x, y in rows))
    return path


GOOD: list[Any] = [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]


@pytest.mark.parametrize(
    "bad",
    [
        [float("nan"), 0.0],
        [float("inf"), 0.0],
        [0.0, 7.0],
        [0.0],
        [0.0, 0.1, 0.2],
        [0.1, "x"],
        None,
        "a text",
    ],
    ids=str,
)
def test_an_image_that_cannot_be_read_counts_as_an_error(tmp_path: Path, bad: Any) -> None:
    rows = [(x, 1) for x in [GOOD[0], bad, *GOOD[1:]]]
    found = read_examples(_jsonl(tmp_path, rows), spec=IMAGES, labels=LABELS)
    assert found.labels.tolist() == [1, ALWAYS_WRONG, 1, 1]
    assert found.readable.tolist() == [True, False, True, True]
    assert np.isfinite(found.inputs).all()
    np.testing.assert_allclose(found.usable.inputs.reshape(3, 2), GOOD)


@pytest.mark.parametrize("bad", ["", " \t", "half \ud83d", None, 3.5, ["a"]], ids=ascii)
def test_a_text_that_cannot_be_read_counts_as_an_error(
    tmp_path: Path, texts: TextInputs, bad: Any
) -> None:
    rows = [(x, "mine") for x in ["good1", bad, "bad1", "good0"]]
    found = read_examples(_jsonl(tmp_path, rows), spec=texts, labels=LABELS)
    assert found.labels.tolist() == [1, ALWAYS_WRONG, 1, 1]
    # It is there in what is committed to and digested, and what differs is told apart.
    other = [*rows[:1], ("another that is empty", "mine"), *rows[2:]]
    changed = read_examples(_jsonl(tmp_path, other), spec=texts, labels=LABELS)
    assert changed.multiset_digest("") != found.multiset_digest("")
    assert found.take([1]).multiset_digest("") != found.take([0]).multiset_digest("")


def test_the_first_row_may_be_the_one(tmp_path: Path, texts: TextInputs) -> None:
    rows = [(None, "mine"), ("good1", "mine"), ("bad1", "other")]
    found = read_examples(_jsonl(tmp_path, rows), spec=texts, labels=LABELS)
    assert found.labels.tolist() == [ALWAYS_WRONG, 1, 0]
    assert list(found.inputs[1:]) == ["good1", "bad1"]


def test_where_half_cannot_be_read_the_format_is_the_mistake(
    tmp_path: Path, texts: TextInputs
) -> None:
    rows = [("good1", 0), ("", 1), (" ", 1)]
    with pytest.raises(
        DataError, match="2 of 3 inputs cannot be read, so this is a mistake of"
    ):
        read_examples(_jsonl(tmp_path, rows), spec=texts, labels=LABELS)


def test_nobody_is_told_to_remove_a_row(texts: TextInputs) -> None:
    for spec, raw in ((texts, np.array([""], dtype=object)), (IMAGES, np.array([[np.nan, 0]]))):
        with pytest.raises(DataError) as caught:
            spec.normalize(raw)
        assert "remove" not in str(caught.value)


def test_the_same_unreadable_row_in_another_file_is_the_same(tmp_path: Path) -> None:
    lines = read_examples(
        _jsonl(tmp_path, [(x, 1) for x in [[float("nan"), 7.0], *GOOD]]),
        spec=IMAGES,
        labels=LABELS,
    )
    path = tmp_path / "data.npz"
    np.savez(path, input=np.array([[np.nan, 7.0], *GOOD], np.float32), label=np.ones(4, int))
    arrays = read_examples(path, spec=IMAGES, labels=LABELS)
    assert arrays.multiset_digest("") == lines.multiset_digest("")
    path = tmp_path / "data.csv"
    rows = "\n".join(f"{a},{b},mine" for a, b in [("nan", 7), *GOOD])
    path.write_text(f"a,b,label\n{rows}\n")
    table = read_examples(path, spec=IMAGES, labels=LABELS)
    assert table.multiset_digest("") == lines.multiset_digest("")


# Labels


def test_a_label_that_is_none_of_the_tasks_makes_every_prediction_wrong() -> None:
    names = ["mine"] * 5 + ["theirs"]
    assert encode_labels(names, LABELS).tolist() == [1] * 5 + [ALWAYS_WRONG]


@pytest.mark.parametrize(
    "names",
    [
        ["mine"] * 3 + ["theirs"],  # a quarter
        ["1"] * 30 + ["2"],  # numbered from 1
        [0] * 30 + [-1],
        ["mine"] * 30 + [""],
        ["mine"] * 30 + [None],
        ["mine"] * 30 + [float("nan")],
    ],
    ids=str,
)
def test_labels_that_are_a_mistake_of_the_file(names: list[Any]) -> None:
    with pytest.raises(DataError, match=f"example {len(names)} has (no|the unknown) label"):
        encode_labels(names, LABELS)


# What it means for scores


def test_such_an_example_is_wrong_for_all_and_tells_none_apart() -> None:
    logits = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(0))
    margins, losses = margins_and_losses(logits, torch.tensor([0, ALWAYS_WRONG, 1]))
    assert (margins[:, 1] == -torch.inf).all()
    assert (losses[:, 1] == 0).all()
    assert margins[:, [0, 2]].isfinite().all()


def test_a_readable_label_beside_an_unreadable_input_is_refused() -> None:
    raw = np.array([None, b"text:"], dtype=object)
    with pytest.raises(DataError, match="cannot be read counts as an error"):
        Examples(np.zeros((2, 1)), np.array([0, 1]), raw)


def test_repeats_are_counted_up_to_case_and_space_and_the_sign_of_zero() -> None:
    words = np.array(["a", "A ", "b", "a", "b "], dtype=object)
    assert Examples(words, np.zeros(5, dtype=np.int64)).occurrences().tolist() == [
        3,
        3,
        2,
        3,
        2,
    ]
    zeros = Examples(np.array([[0.0], [-0.0], [1.0]]), np.zeros(3, dtype=np.int64))
    assert zeros.duplicates == 2
    raw = np.array([None, b"text:", b"text:"], dtype=object)
    broken = Examples(np.array(["a", "a", "a"], dtype=object), np.array([0, -1, -1]), raw)
    assert broken.duplicates == 0
