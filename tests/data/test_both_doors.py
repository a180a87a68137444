"""What a file says, it says to both doors: to `read_examples` and to the scenario `table`."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedcert.data import TextInputs, read_examples
from fedcert.data.tables import Columns, read_columns
from fedcert.errors import DataError
from fedcert.scenarios import load_scenario

TEXTS = TextInputs(max_length=8, tokenizer_digest="0" * 64)
Door = Callable[[Path], None]


def _device(path: Path) -> None:
    read_examples(path, spec=TEXTS, labels=("good", "bad"))


def _table(path: Path) -> None:
    options = {"source": str(path), "smallest": 4, "smallest_new": 4, "new": 1}
    _ = load_scenario("table", options).new_clients


@pytest.fixture(params=[_device, _table], ids=["device", "table"])
def door(request: pytest.FixtureRequest) -> Any:
    return request.param


def _rows(count: int = 24) -> list[dict[str, Any]]:
    return [
        {"input": f"text {i}", "label": ("good", "bad")[i % 2], "client": f"c{i // 8}"}
        for i in range(count)
    ]


def _csv(
    separator: str = ",", *, end: str = "\n", rows: list[dict[str, Any]] | None = None
) -> str:
    table = rows or _rows()
    lines = [separator.join(table[0]), *(separator.join(row.values()) for row in table)]
    return end.join(lines) + end


def _jsonl(rows: list[dict[str, Any]] | None = None) -> str:
    return "\n".join(json.dumps(row) for row in rows or _rows())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", _csv().encode()),
        ("t.csv", _csv(";").encode("utf-8-sig")),
        ("t.csv", _csv("\t").encode()),
        ("t.tsv", _csv("\t").encode()),
        ("t.CSV", _csv(end="\r\n").encode("utf-8-sig")),
        ("t.csv", _csv(end="\r").encode()),
        ("t.csv.gz", gzip.compress(_csv().encode())),
        ("t.jsonl", _jsonl().encode()),
        ("t.jsonl", _jsonl().encode("utf-8-sig")),
        ("t.jsonl.gz", gzip.compress(_jsonl().encode("utf-8-sig"))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_both_read_it(door: Door, name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    door(path)


def _changed(row: int, **cells: Any) -> list[dict[str, Any]]:
    rows = _rows()
    rows[row] |= cells
    return rows


LONG = [
    *_rows(8),
    {"input": '"two\nlines\nor three"', "label": "bad", "client": "c0"},
    *_rows(1),
]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "inputs,label,client\na,b,c\n", "no column 'input'; it has inputs, label, "
         "client.*did you mean 'inputs'"),
        ("t.csv", "input,Label,client\na,b,c\n", "no column 'label'.*did you mean 'Label'"),
        ("t.csv", "input,label,label,client\na,b,b,c\n", "2 columns 'label'; keep one"),
        ("t.csv", _csv(rows=LONG) + "a,b\n", "line 14 has another number of fields than the "
         r"header \(2 instead of 3\)"),
        ("t.csv", "input,label,client\n\n\na,b\n", "line 4 has another number of fields"),
        ("t.csv", _csv().encode("utf-16"), "not UTF-8 text"),
        ("t.csv.gz", gzip.compress(_csv().encode())[:-9], "cannot be read"),
        ("t.jsonl", _jsonl(_changed(16, label="\ud83d")), "line 17 holds half of a char"),
        ("t.jsonl", _jsonl(_changed(16, label=["bad"])), r"line 17 holds \['bad'\] where"),
        ("t.jsonl", _jsonl(_changed(16, label={"a": 1})), "line 17 holds {'a': 1} where"),
        ("t.jsonl", _jsonl() + "\n" + "[" * 100_000, "line 25 is not JSON"),
        ("t.jsonl", _jsonl() + '\n{"label": ' + "9" * 5000 + "}", "line 25 is not JSON"),
        ("t.xlsx", "PK", "unknown file type; use one of .csv, .tsv"),
    ],
)  # fmt: skip
def test_both_refuse_it_in_the_same_words(
    door: Door, name: str, content: str | bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=f"^{path}: .*{message}"):
        door(path)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("a \ud83d", "holds half of a character"),
        (5, "is not a text but int"),
        (["a"], "is not a"),
    ],
)
def test_a_text_that_cannot_be_read_is_named(
    cell: object, message: str, tmp_path: Path
) -> None:
    """A table refuses it; on a device it counts as an error."""
    path = tmp_path / "t.jsonl"
    path.write_text(_jsonl(_changed(16, input=cell)))
    with pytest.raises(DataError, match=f"line 17 {message}"):
        _table(path)
    said: list[str] = []
    found = read_examples(path, spec=TEXTS, labels=("good", "bad"), warn=said.append)
    assert found.always_wrong == 1
    assert "(line 17); each counts as an error" in said[0]


def test_a_line_is_one_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(_csv(rows=LONG), encoding="utf-8")
    table = read_columns(str(tmp_path / "t.csv"), ["input"])
    assert [table.where(row) for row in (0, 7, 8, 9)] == [
        "line 2",
        "line 9",
        "line 10",
        "line 13",
    ]


@pytest.mark.parametrize("names", [("bad", "good"), None])
def test_the_names_of_a_class_label_are_used(
    names: tuple[str, ...] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Saved(dict[str, list[Any]]):
        column_names = ("text", "label")
        features = {"label": SimpleNamespace(names=names), "text": SimpleNamespace()}  # noqa: RUF012
        keys = property()  # several splits would have it

    found = Saved(text=["a", "b", "c"], label=[1, 0, -1])
    stub = SimpleNamespace(load_from_disk=lambda _source: found)
    monkeypatch.setitem(sys.modules, "datasets", stub)
    table = read_columns(str(tmp_path), ["text", "label"])
    assert list(table["label"]) == (["good", "bad", None] if names else [1, 0, -1])
    assert isinstance(table, Columns)


def test_bytes_of_an_archive_are_texts(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "t.npz", input=np.array([b"a", b"b"]), label=np.array([b"bad", b"good"])
    )
    examples = read_examples(tmp_path / "t.npz", spec=TEXTS, labels=("good", "bad"))
    assert examples.labels.tolist() == [1, 0]
    assert examples.inputs.tolist() == ["a", "b"]
