"""Reading a user's own labeled examples, and checking them against a task."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.data.cells import numbers_if_all
from fedcert.data.examples import ALWAYS_WRONG, Examples
from fedcert.data.inputs import ImageInputs, InputSpec
from fedcert.data.labels import encode_labels
from fedcert.data.tables import Columns, read_columns
from fedcert.errors import DataError

__all__ = ["read_examples", "read_inputs", "read_unlabeled"]

# Examples that a warning names.
_MOST_SHOWN = 10


def read_examples(
    path: Path,
    *,
    spec: InputSpec,
    labels: Sequence[str],
    input_column: str = "input",
    label_column: str = "label",
    without: Sequence[str] = (),
    strict: bool = True,
    warn: Callable[[str], object] = warnings.warn,
) -> Examples:
    """Read labeled examples and check them against a task.

    All of them are returned. Those that cannot be read, or have another label than the task's,
    count as errors.

    Parameters
    ----------
    path : Path
        A file that `fedcert.data.tables.read_columns` takes. A CSV file without the column
        `input_column` has one number of an image per remaining column, row by row.
    spec : InputSpec
        What an input must look like.
    labels : Sequence[str]
        The task's label names; what a label in the file may be says
        `fedcert.data.labels.encode_labels`.
    input_column, label_column : str (default: "input", "label")
        Names of the columns.
    without : Sequence[str], optional
        Columns that are none of an image's numbers, if the file has them.
    strict : bool (default: True)
        Whether many examples that cannot be read, or have another label than the task's, are
        taken for a mistake of the file. Otherwise all of them count as errors.
    warn : callable (default: warnings.warn)
        Called with which examples count as errors, and what is accepted and yet looks wrong.

    Returns
    -------
    fedcert.data.Examples
        As many examples as the file has rows, in their order.

    Raises
    ------
    DataError
        If the file is missing, empty, malformed, a label is missing, or, if `strict`, half of
        it cannot be read, or too many labels are unknown. The message names the line.
    """
    _check_file(path)
    table = read_columns(str(path), [label_column], rest=input_column, without=without)
    inputs = numbers_if_all(table[input_column])
    with table.located():
        classes = encode_labels(table[label_column], labels, strict=strict)
        examples = spec.examples(inputs, classes, strict=strict)
    for remark in (*_errors(table, examples), *spec.remarks(inputs, examples.inputs)):
        warn(f"{path}: {remark}")
    return examples


def read_inputs(
    path: Path, *, spec: InputSpec, input_column: str = "input", label_column: str = "label"
) -> npt.NDArray[Any]:
    """Read inputs without labels, and check that a model takes them.

    Parameters
    ----------
    path : Path
        A file that `fedcert.data.tables.read_columns` takes. A CSV file of images may have one
        number of an image per column, row by row.
    spec : InputSpec
        What an input must look like.
    input_column : str (default: "input")
        Name of the column.
    label_column : str (default: "label")
        A column that is none of an image's numbers, if the file has it.

    Returns
    -------
    numpy.ndarray
        As many inputs as the file has rows, in their order, as `spec` keeps them.

    Raises
    ------
    DataError
        If the file is missing, empty, or malformed, or an input does not fit. The message
        names the line.
    """
    table = _inputs(path, spec, input_column, label_column)
    with table.located():
        return spec.normalize(numbers_if_all(table[input_column]))


def read_unlabeled(
    path: Path,
    *,
    spec: InputSpec,
    input_column: str = "input",
    label_column: str = "label",
    warn: Callable[[str], object] = warnings.warn,
) -> Examples:
    """Read inputs without labels that are to have a part in making an adapter.

    Parameters
    ----------
    path : Path
        As in `read_inputs`.
    spec : InputSpec
        What an input must look like.
    input_column, label_column : str (default: "input", "label")
        As in `read_inputs`; labels that the file has are not looked at.
    warn : callable (default: warnings.warn)
        Called with which inputs cannot be read, and so say nothing, and what looks wrong.

    Returns
    -------
    fedcert.data.Examples
        As many as the file has rows, in their order, all of them without a label.

    Raises
    ------
    DataError
        If the file is missing, empty, or malformed, or half of it cannot be read.
    """
    table = _inputs(path, spec, input_column, label_column)
    raw = numbers_if_all(table[input_column])
    with table.located():
        found = spec.examples(raw, np.full(len(raw), ALWAYS_WRONG))
    for remark in (*_unread(table, found), *spec.remarks(raw, found.inputs)):
        warn(f"{path}: {remark}")
    return found


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise DataError(
            f"{path}: {'a folder; name a file' if path.is_dir() else 'no such file'}"
        )


def _inputs(path: Path, spec: InputSpec, input_column: str, label_column: str) -> Columns:
    """Read the column of inputs, which of images may be the rest of the file."""
    _check_file(path)
    if isinstance(spec, ImageInputs):
        return read_columns(str(path), [], rest=input_column, without=[label_column])
    return read_columns(str(path), [input_column])


def _unread(table: Columns, found: Examples) -> list[str]:
    """Say which inputs without labels cannot be read, if any."""
    rows = np.flatnonzero(~found.readable)
    if not len(rows):
        return []
    return [
        f"{len(rows)} of the {len(found)} inputs without labels cannot be read "
        f"({_places(table, rows)}), and have no part in the adapter"
    ]


def _places(table: Columns, rows: npt.NDArray[np.int64]) -> str:
    shown = ", ".join(table.where(row) for row in rows[:_MOST_SHOWN])
    return f"{shown}{', ...' * (len(rows) > _MOST_SHOWN)}"


def _errors(table: Columns, examples: Examples) -> list[str]:
    """Say which examples count as errors, if any."""
    rows = np.flatnonzero(examples.labels == ALWAYS_WRONG)
    if not len(rows):
        return []
    return [
        f"{len(rows)} of the {len(examples)} examples cannot be read, or have no label of the "
        f"task ({_places(table, rows)}); each counts as an error. Leave them in: they are part "
        "of what the model meets"
    ]
