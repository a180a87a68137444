"""Reading a user's own labelled examples from CSV, JSON lines, NPZ, or Parquet files."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.data.examples import ALWAYS_WRONG, Examples
from fedcert.data.inputs import InputSpec
from fedcert.data.tables import read_columns
from fedcert.errors import DataError

__all__ = ["encode_labels", "read_examples"]

# An image has a column for each value; nobody wants to read all of them in a message.
_MOST_NAMED = 10
# Share of the labels that may be none of the task's; more are a mistake in the file.
_MOST_UNKNOWN = 0.2


def read_examples(
    path: Path,
    *,
    spec: InputSpec,
    labels: Sequence[str],
    input_column: str = "input",
    label_column: str = "label",
) -> Examples:
    """Read labelled examples and check them against a task.

    All of them are returned. Those that cannot be read, or have another label than the task's,
    count as errors.

    Parameters
    ----------
    path : Path
        ``.csv``: a header, then one example per line; either one column `input_column`
        (a text) or one number per remaining column (an image, row by row).
        ``.jsonl``: one object per line with `input_column` and `label_column`.
        ``.npz``: arrays of these names, without pickled objects.
        ``.parquet``: columns of these names; needs ``pip install 'fedcert[data]'``.
    spec : InputSpec
        What an input must look like.
    labels : Sequence[str]
        The task's label names; a label in the file is one of these or its index.

    Raises
    ------
    DataError
        If the file is missing, empty, malformed, half of it cannot be read, a label is
        missing, or too many are unknown.
    """
    readers = {
        ".csv": _read_csv,
        ".jsonl": _read_jsonl,
        ".npz": _read_npz,
        ".parquet": _read_parquet,
    }
    if path.suffix not in readers:
        raise DataError(f"{path}: unknown file type; use one of {', '.join(readers)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        inputs, names = readers[path.suffix](path, input_column, label_column)
    except csv.Error as error:
        raise DataError(f"{path}: not a readable CSV file ({error})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error})") from error
    if len(names) == 0:
        raise DataError(f"{path}: holds no examples")
    try:
        return spec.examples(inputs, encode_labels(names, labels))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def encode_labels(names: Sequence[Any], labels: Sequence[str]) -> npt.NDArray[np.int64]:
    """Turn label names, or their indices, into class indices.

    A label that is none of the task's makes every prediction wrong (`ALWAYS_WRONG`).

    Raises
    ------
    DataError
        If a label is missing, many are unknown, or they are numbers that do not fit: that is
        a mistake in the file, not an example out of the ordinary.
    """
    index = {str(position): position for position in range(len(labels))}
    index.update({name: position for position, name in enumerate(labels)})
    keys = [_key(name) for name in names]
    unknown = [row for row, key in enumerate(keys, start=1) if key not in index]
    missing = [row for row in unknown if keys[row - 1] == ""]
    numbered = all(key.lstrip("-").isdecimal() for key in keys)
    many = len(unknown) > _MOST_UNKNOWN * len(keys)
    if missing or many or (unknown and numbered):
        row = (missing or unknown)[0]
        raise DataError(
            f"example {row} has the unknown label {keys[row - 1]!r}; "
            f"the labels of this task are {', '.join(labels)}"
        )
    return np.array([index.get(key, ALWAYS_WRONG) for key in keys], dtype=np.int64)


def _key(name: Any) -> str:
    value = name.item() if isinstance(name, np.generic) else name
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if missing else str(value).strip()


def _read_csv(
    path: Path, input_column: str, label_column: str
) -> tuple[npt.NDArray[Any], list[str]]:
    # utf-8-sig: spreadsheets put a byte order mark in front.
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        header = list(rows.fieldnames or [])
        _require(path, label_column, header)
        columns = [name for name in header if name != label_column]
        table = list(rows)
    for number, row in enumerate(table, start=2):
        if None in row or None in row.values():
            raise DataError(
                f"{path}: line {number} has another number of fields than the header"
            )
    names = [row[label_column] for row in table]
    if input_column in header:
        return np.array([row[input_column] for row in table], dtype=object), names
    return _numbers(path, [[row[name] for name in columns] for row in table]), names


def _read_jsonl(
    path: Path, input_column: str, label_column: str
) -> tuple[npt.NDArray[Any], list[Any]]:
    inputs, names = [], []
    # Not splitlines, which also splits at U+2028 and others that JSON strings may hold.
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}: line {number} is not JSON ({error.msg})") from error
        if not isinstance(item, dict) or not {input_column, label_column} <= item.keys():
            raise DataError(
                f"{path}: line {number} needs the keys {input_column!r} and {label_column!r}"
            )
        inputs.append(item[input_column])
        names.append(item[label_column])
    if _are_texts(inputs):
        return np.array(inputs, dtype=object), names
    return _numbers(path, inputs), names


def _read_npz(
    path: Path, input_column: str, label_column: str
) -> tuple[npt.NDArray[Any], list[Any]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            _require(path, label_column, arrays.files)
            _require(path, input_column, arrays.files)
            return arrays[input_column], list(arrays[label_column])
    except DataError:
        raise
    except Exception as error:  # NumPy raises many types on a damaged archive
        raise DataError(f"{path}: not a readable NPZ file ({error})") from error


def _read_parquet(
    path: Path, input_column: str, label_column: str
) -> tuple[npt.NDArray[Any], list[Any]]:
    columns = read_columns(str(path), [input_column, label_column])
    inputs, names = columns[input_column], list(columns[label_column])
    if _are_texts(inputs):
        return inputs, names
    return _numbers(path, list(inputs)), names


def _require(path: Path, column: str, present: Sequence[str]) -> None:
    if column not in present:
        shown = ", ".join(present[:_MOST_NAMED]) or "none at all"
        more = len(present) - _MOST_NAMED
        raise DataError(
            f"{path}: no column {column!r}; it has {shown}{f' and {more} more' * (more > 0)}"
        )


def _are_texts(inputs: Sequence[Any] | npt.NDArray[Any]) -> bool:
    """Say whether most inputs are texts; one that is none is an example that is not read."""
    return 2 * sum(isinstance(value, str) for value in inputs) > len(inputs)


def _numbers(path: Path, rows: list[Any]) -> npt.NDArray[Any]:
    """Return rows of numbers as one array; if some do not fit, all as they are."""
    try:
        return np.array(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        sizes = Counter(map(_size, rows))
        most = sizes.most_common(1)[0][0]
        if most is None or 2 * sizes[most] <= len(rows):
            raise DataError(
                f"{path}: the inputs are not rows of equally many numbers ({error})"
            ) from error
    kept = np.empty(len(rows), dtype=object)
    kept[:] = rows
    return kept


def _size(row: Any) -> int | None:
    try:
        return np.asarray(row, dtype=np.float64).size
    except (TypeError, ValueError):
        return None
