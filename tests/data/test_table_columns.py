"""Columns of a user's table, from every kind of file."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from fedcert.data.tables import read_columns
from fedcert.errors import DataError

TEXTS, LABELS = ["a, b", 'say "c"', "d\u2028e"], ["x", "y", "x"]


def _write(folder: Path, kind: str) -> str:
    path = folder / f"table{kind}"
    if kind.startswith(".csv"):
        quoted = (text.replace('"', '""') for text in TEXTS)
        rows = [f'"{text}",{label},9' for text, label in zip(quoted, LABELS, strict=True)]
        content = "\r\n".join(["\ufefftext,label,more", *rows]).encode()
    elif kind.startswith(".jsonl"):
        pairs = zip(TEXTS, LABELS, strict=True)
        rows = [json.dumps({"text": t, "label": y}, ensure_ascii=False) for t, y in pairs]
        content = ("\n".join(rows) + "\n\n").encode()
    else:
        np.savez(path, text=np.array(TEXTS), label=np.array(LABELS))
        return str(path)
    path.write_bytes(gzip.compress(content) if kind.endswith(".gz") else content)
    return str(path)


@pytest.mark.parametrize("kind", [".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".npz"])
def test_files(kind: str, tmp_path: Path) -> None:
    table = read_columns(_write(tmp_path, kind), ["text", "label"])
    assert list(table.values) == ["text", "label"]
    assert list(table["text"]) == TEXTS
    assert list(table["label"]) == LABELS


def test_lists_stay_lists(tmp_path: Path) -> None:
    path = tmp_path / "images.jsonl"
    path.write_text('{"image": [[1, 2], [3, 4]]}\n{"image": [[5, 6], [7, 8]]}')
    assert list(read_columns(str(path), ["image"])["image"])[1] == [[5, 6], [7, 8]]


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra `data` is not installed")
    from pyarrow import parquet

    path = str(tmp_path / "table.parquet")
    parquet.write_table(pyarrow.table({"text": TEXTS, "label": LABELS}), path)
    assert list(read_columns(path, ["text"])["text"]) == TEXTS
    with pytest.raises(DataError, match="no column 'input'; it has text, label"):
        read_columns(path, ["input"])
    Path(path).write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read_columns(path, ["text"])


def test_saved_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra `data` is not installed")
    part = datasets.Dataset.from_dict({"text": TEXTS, "label": LABELS})
    part.save_to_disk(str(tmp_path / "one"))
    assert list(read_columns(str(tmp_path / "one"), ["label"])["label"]) == LABELS
    datasets.DatasetDict({"test": part}).save_to_disk(str(tmp_path / "several"))
    several = str(tmp_path / "several")
    assert list(read_columns(several, ["label"], split="test")["label"]) == LABELS
    with pytest.raises(DataError, match="no split 'train'; it has test"):
        read_columns(several, ["label"])


@pytest.mark.parametrize(
    ("source", "package"), [("t.parquet", "pyarrow"), (".", "datasets"), ("a/b", "datasets")]
)
def test_missing_packages_are_named(
    source: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.parquet").touch()
    for name in ("pyarrow", "pyarrow.parquet", "datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DataError, match=rf"needs the package '{package}'.*fedcert\[data\]"):
        read_columns(source, ["text"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "text,label\n", "holds no examples"),
        ("t.csv", "label\nx\n", "no column 'text'; it has label"),
        ("t.csv", "", "no column 'text'; it has none at all"),
        ("t.csv", "text,label\na,b,c\n", "line 2 has another number of fields"),
        ("t.csv", b"text\n\xff\n", "cannot be read"),
        ("t.csv.gz", "text\na\n", "cannot be read"),
        ("t.jsonl", '{"text": "a"}\n{"txt": "b"}\n', "line 2: no column 'text'; it has txt"),
        ("t.jsonl", "[1]\n", "line 1 is not a JSON object"),
        ("t.jsonl", "{\n", "line 1 is not JSON"),
        ("t.npz", "PK", "not a readable NPZ file"),
        ("t.xls", "", "unknown file type; use one of .csv, .tsv, .jsonl, .npz, .parquet"),
    ],
)
def test_mistakes(name: str, content: str | bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError, match=message):
        read_columns(str(path), ["text"])


def test_unequal_lengths_and_missing_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", text=np.zeros(3), label=np.zeros(2))
    with pytest.raises(DataError, match=r"not equally long: {'text': 3, 'label': 2}"):
        read_columns(str(tmp_path / "t.npz"), ["text", "label"])
    with pytest.raises(DataError, match="no such file"):
        read_columns(str(tmp_path / "none.csv"), ["text"])


def test_a_folder_of_pictures_is_told_what_to_become(tmp_path: Path) -> None:
    picture = tmp_path / "photos" / "crack" / "1.PNG"
    picture.parent.mkdir(parents=True)
    picture.touch()
    with pytest.raises(
        DataError, match=r"photos: a folder of pictures \(crack.1\.PNG\).*\.npz"
    ):
        read_columns(str(tmp_path / "photos"), ["input"])


def test_a_cell_may_be_as_long_as_it_likes(tmp_path: Path) -> None:
    """Python's reader stops at 131,072 characters unless it is told otherwise."""
    path, text = tmp_path / "long.csv", "word " * 60_000
    path.write_text(f"input,label\n{text},good\nshort,bad\n")
    assert len(read_columns(str(path), ["input"])["input"][0]) == len(text)
