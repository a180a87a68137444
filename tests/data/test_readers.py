"""Reading a user's own examples: every mistake gets a message that helps."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedcert.data import Examples, ImageInputs, InputSpec, read_examples
from fedcert.data.labels import encode_labels
from fedcert.data.readers import read_inputs
from fedcert.errors import DataError

IMAGES = ImageInputs(channels=1, height=2, width=2, low=0.0, high=16.0)
LABELS = ("other", "mine")
PIXELS = np.array([[0, 1, 2, 3], [4, 5.5, 6, 16]], dtype=np.float32).reshape(2, 1, 2, 2)


@dataclass(frozen=True)
class _Texts(InputSpec):
    kind = "texts"

    def normalize(self, raw: np.ndarray) -> np.ndarray:
        if not all(isinstance(text, str) for text in raw):
            raise DataError("an input is not a text")
        return raw

    def encode(self, inputs: np.ndarray) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def to_config(self) -> dict[str, Any]:
        return {}


def _read(path: Path, spec: InputSpec = IMAGES, **options: str) -> Examples:
    return read_examples(path, spec=spec, labels=LABELS, **options)


def _write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _npz(folder: Path, **arrays: Any) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def _check_images(examples: Examples) -> None:
    np.testing.assert_array_equal(examples.inputs, PIXELS)
    assert examples.inputs.dtype == np.float32
    assert examples.labels.tolist() == [1, 0]


LABEL_FIRST = "label,a,b,c,d\nmine,0,1,2,3\nother,4,5.5,6,16\n"
CSV = "a,b,label,c,d\n0,1,mine,2,3\n4,5.5,other,6,16\n"


@pytest.mark.parametrize(
    "content",
    [
        CSV,
        "\ufeff" + LABEL_FIRST,
        CSV.replace("\n", "\r\n"),
        CSV.replace("mine", "1"),
        CSV.strip(),
    ],
    ids=["plain", "byte order mark", "windows", "index", "no last newline"],
)
def test_csv_images(tmp_path: Path, content: str) -> None:
    _check_images(_read(_write(tmp_path, "data.csv", content)))


def test_csv_texts(tmp_path: Path) -> None:
    content = 'id,input,label\n1,"two\nlines, and a comma",mine\n2,\u00e9t\u00e9, other \n'
    examples = _read(_write(tmp_path, "data.csv", content), _Texts())
    assert examples.inputs.tolist() == ["two\nlines, and a comma", "\u00e9t\u00e9"]
    assert examples.labels.tolist() == [1, 0]


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    path = _write(tmp_path, "data.csv", "text,intent\nhello,mine\n")
    examples = _read(path, _Texts(), input_column="text", label_column="intent")
    assert examples.inputs.tolist() == ["hello"]


def test_jsonl_texts(tmp_path: Path) -> None:
    rows = [{"input": "a\u2028b\x85c", "label": "mine", "id": 3}, {"input": "", "label": 0}]
    lines = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    examples = _read(_write(tmp_path, "data.jsonl", lines), _Texts())
    assert examples.inputs.tolist() == ["a\u2028b\x85c", ""]
    assert examples.labels.tolist() == [1, 0]


def test_jsonl_images(tmp_path: Path) -> None:
    rows = [
        {"input": PIXELS[0].tolist(), "label": "mine"},
        {"input": PIXELS[1].tolist(), "label": "other"},
    ]
    _check_images(
        _read(_write(tmp_path, "data.jsonl", "\r\n".join(json.dumps(r) for r in rows)))
    )


@pytest.mark.parametrize("labels", [["mine", "other"], [1, 0], np.array([1, 0], np.uint8)])
@pytest.mark.parametrize("shape", [(2, 4), (2, 2, 2), (2, 1, 2, 2)])
def test_npz_images(tmp_path: Path, labels: Any, shape: tuple[int, ...]) -> None:
    _check_images(_read(_npz(tmp_path, input=PIXELS.reshape(shape), label=labels)))


HEAD = "a,b,c,d,label\n"


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("data.csv", "", "no column 'label'; it has none at all"),
        ("data.csv", HEAD, "holds no examples"),
        ("data.csv", "a,b\n1,2\n", "no column 'label'; it has a, b"),
        ("data.csv", HEAD + "1,2,3,4,yours\n", "line 2 has the unknown label 'yours'.*, mine"),
        ("data.csv", HEAD + "1,2,3,4,2\n", "line 2 has the unknown label '2'"),
        ("data.csv", HEAD + "1,2,3,4,\n", "line 2 has no label; .*, mine"),
        ("data.csv", HEAD + "1,2,3,4,0\n1,2,3,0\n", "line 3 has another number of fields"),
        ("data.csv", HEAD + "1,2,3,4,0,9\n", "line 2 has another number of fields"),
        ("data.csv", HEAD + "1,2,x,4,0\n", "no column 'input'; .*line 2 has .*'x'"),
        ("data.csv", HEAD + "1,2,nan,4,0\n", "line 2 holds NaN or an infinity"),
        ("data.csv", HEAD + "1,2,3,4,0\n1,inf,3,4,0\n", "line 3 holds NaN"),
        ("data.csv", HEAD + "1,2,3,17,0\n", r"line 2 has values outside \[0, 16\]; resc"),
        ("data.csv", HEAD + "1,2,3,-1,0\n", r"line 2 has values outside \[0, 16\]"),
        ("data.csv", "a,b,label\n1,2,0\n", "an image has 2 values, .* 1 x 2 x 2 = 4; resize"),
        ("data.csv", b"a,label\n\xff,0\n", "not UTF-8 text"),
        ("data.csv", "input,label\n" + "x" * 200_000 + ",0\n", r"numbers: .{120}\.\.\.$"),
        ("data.jsonl", "", "holds no examples"),
        ("data.jsonl", "\n\n", "holds no examples"),
        ("data.jsonl", '{"input": [1], "label": 0}\n{', "line 2 is not JSON"),
        ("data.jsonl", "[1, 2]", "line 1 is not a JSON object with the keys 'label', 'input'"),
        ("data.jsonl", '{"input": [1,2,3,4]}', "line 1: no column 'label'; it has input"),
        (
            "data.jsonl",
            '{"input": [1,2,3,4], "label": 0}\n{"input": [1,2,3], "label": 0}',
            "line 2 has the shape .3,., and the first one .4,.",
        ),
        ("data.jsonl", '{"input": [1,2,3,NaN], "label": 0}', "line 1 holds NaN"),
        ("data.jsonl", '{"input": [1,2,3], "label": 0}', "an image has 3 values"),
        ("data.jsonl", '{"input": 3, "label": 0}', "an image has 1 values"),
        ("data.jsonl", '{"input": "text", "label": 0}', "line 1 holds something else"),
        ("data.jsonl", '{"input": [1,2,3,4], "label": "0.5"}', "unknown label '0.5'"),
        ("data.jsonl", b'{"input": "\xff", "label": 0}', "not UTF-8 text"),
        ("data.npz", b"PK\3\4 but no more", "not a readable NPZ file"),
        ("data.npz", b"", "not a readable NPZ file"),
        ("data.txt", "1 2", "unknown file type; use one of .csv, .tsv, .jsonl, .npz"),
        ("data", "1 2", "unknown file type"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused(
    tmp_path: Path, name: str, content: str | bytes, text: str
) -> None:
    path = _write(tmp_path, name, content)
    with pytest.raises(DataError, match=f"^{path}: .*{text}"):
        _read(path)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"input": PIXELS}, "no column 'label'; it has input"),
        ({"label": [0, 1]}, "no column 'input'; it has label"),
        ({"input": PIXELS, "label": [0]}, "columns are not equally long"),
        ({"input": PIXELS[:0], "label": [0]}, "columns are not equally long"),
        ({"input": PIXELS[:0], "label": []}, "holds no examples"),
        ({"input": PIXELS, "label": 3}, "the array 'label' is one value"),
        (
            {"input": PIXELS, "label": [[0], [1]]},
            r"row 1 holds \[0\] where one word or number belongs",
        ),
        ({"input": PIXELS * np.nan, "label": [0, 1]}, "row 1 holds NaN"),
        ({"input": np.ones((2, 3)), "label": [0, 1]}, "an image has 3 values"),
        ({"input": np.ones(2), "label": [0, 1]}, "an image has 1 values"),
        ({"input": np.array(3.0), "label": [0, 1]}, "'input' is one value"),
        (
            {"input": np.array([{}, 3], dtype=object), "label": [0, 1]},
            "array of Python objects",
        ),
        (
            {"input": PIXELS, "label": np.array([{}, 1], dtype=object)},
            "array of Python objects",
        ),
    ],
)
def test_a_bad_archive_is_refused(tmp_path: Path, arrays: dict[str, Any], text: str) -> None:
    path = _npz(tmp_path, **arrays)
    with pytest.raises(DataError, match=f"^{path}: .*{text}"):
        _read(path)


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return (Path.touch, (tmp_path / "ran",))

    path = _npz(tmp_path, input=PIXELS, label=np.array([Trap(), Trap()], dtype=object))
    with pytest.raises(DataError, match="array of Python objects"):
        _read(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["data.csv", "data.jsonl", "data.npz"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"{name}: no such file"):
        _read(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=f"{name}: a folder; name a file"):
        _read(tmp_path / name)


def test_a_label_that_is_a_number_is_a_name_first() -> None:
    names = ["1", "0", "2", 1, np.int64(2), np.str_(" 0 ")]
    assert encode_labels(names, ["1", "0", "2"]).tolist() == [0, 1, 2, 0, 2, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b,c,d,id,label\n0,1,2,3,7,mine\n4,5,6,7,8,other\n", "columns that are no pixels"),
        ("a,b,c,d,Label\n0,1,2,3,mine\n", "did you mean 'Label'"),
    ],
    ids=["a column beside pixels", "a label by another name"],
)
def test_a_column_that_is_no_pixel_is_named(tmp_path: Path, content: str, message: str) -> None:
    """An image may have thousands of columns, whose values show nobody the wrong one."""
    path = _write(tmp_path, "data.csv", content)
    with pytest.raises(DataError, match=message) as caught:
        _read(path)
    assert len(str(caught.value)) < 300 + len(str(path))
    if "Label" in content:
        with pytest.raises(DataError, match=r"line 2 has 'mine' in 'Label'$"):
            read_inputs(path, spec=IMAGES)
