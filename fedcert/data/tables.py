"""Columns of a user's own table: CSV, JSON lines, Parquet, NPZ, or a `datasets` data set."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.errors import DataError

__all__ = ["Columns", "read_columns"]

Columns = dict[str, npt.NDArray[Any]]
"""Values by column, equally many in each; all but numeric arrays hold objects."""


def read_columns(source: str, columns: Sequence[str], *, split: str = "train") -> Columns:
    """Read some columns of a table.

    Parameters
    ----------
    source : str
        A file ``.csv``, ``.jsonl`` (either may end in ``.gz``), ``.parquet`` or ``.npz``; a
        folder that ``datasets`` saved; or the hub id of a data set.
    columns : Sequence[str]
        Which columns; each has to be there.
    split : str (default: "train")
        Which part of a `datasets` data set that has several.

    Raises
    ------
    DataError
        If it cannot be read, is empty, or lacks a column.
    """
    path, wanted = Path(source), list(dict.fromkeys(columns))
    try:
        table = _reader(path)(source, wanted, split)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{source}: cannot be read ({error})") from error
    lengths = {name: len(values) for name, values in table.items()}
    if len(set(lengths.values())) != 1:
        raise DataError(f"{source}: its columns are not equally long: {lengths}")
    if not next(iter(lengths.values())):
        raise DataError(f"{source}: holds no rows")
    return table


_Reader = Callable[[str, list[str], str], Columns]


def _reader(path: Path) -> _Reader:
    readers: dict[str, _Reader] = {
        ".csv": _csv,
        ".jsonl": _jsonl,
        ".parquet": _parquet,
        ".npz": _npz,
    }
    if path.is_dir():
        return _saved
    reader = readers.get(Path(path.name.removesuffix(".gz")).suffix)
    if path.is_file() and reader is not None:
        return reader
    if path.is_file():
        raise DataError(f"{path}: unknown file type; use one of {', '.join(readers)}")
    if reader is None and len(path.parts) == 2 and not path.is_absolute():
        return _hub
    raise DataError(f"{path}: no such file")


def _open(source: str) -> io.TextIOBase:
    # utf-8-sig: spreadsheets put a byte order mark in front.
    if source.endswith(".gz"):
        return gzip.open(source, "rt", encoding="utf-8-sig", newline="")
    return Path(source).open(encoding="utf-8-sig", newline="")


def _csv(source: str, columns: list[str], _split: str) -> Columns:
    with _open(source) as file:
        rows = csv.DictReader(file)
        _require(source, columns, list(rows.fieldnames or []))
        table = list(rows)
    for number, row in enumerate(table, start=1):
        if None in row or None in row.values():
            raise DataError(f"{source}: row {number} has another number of fields")
    return {name: _objects([row[name] for row in table]) for name in columns}


def _jsonl(source: str, columns: list[str], _split: str) -> Columns:
    rows = []
    with _open(source) as file:
        # Not splitlines, which also splits at U+2028 and others that JSON strings may hold.
        lines = file.read().split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise DataError(f"{source}: line {number} is not JSON ({error.msg})") from error
        if not isinstance(rows[-1], dict):
            raise DataError(f"{source}: line {number} is not a JSON object")
        _require(f"{source}, line {number}", columns, list(rows[-1]))
    return {name: _objects([row[name] for row in rows]) for name in columns}


def _npz(source: str, columns: list[str], _split: str) -> Columns:
    try:
        with np.load(source, allow_pickle=False) as arrays:
            _require(source, columns, arrays.files)
            return {name: arrays[name] for name in columns}
    except DataError:
        raise
    except Exception as error:  # NumPy raises many types on a damaged archive
        raise DataError(f"{source}: not a readable NPZ file ({error})") from error


def _parquet(source: str, columns: list[str], _split: str) -> Columns:
    parquet = _optional("pyarrow.parquet", source)
    try:
        file = parquet.ParquetFile(source)
        _require(source, columns, list(file.schema_arrow.names))
        table = file.read(columns=columns)
    except DataError:
        raise
    except Exception as error:  # pyarrow's own types, which may not be importable here
        raise DataError(f"{source}: not a readable Parquet file ({error})") from error
    return {name: _objects(table.column(name).to_pylist()) for name in columns}


def _saved(source: str, columns: list[str], split: str) -> Columns:
    datasets = _optional("datasets", source)
    try:
        found = datasets.load_from_disk(source)
    except Exception as error:  # `datasets` raises many types
        raise DataError(f"{source}: not a folder that `datasets` saved ({error})") from error
    return _from_dataset(source, found, columns, split)


def _hub(source: str, columns: list[str], split: str) -> Columns:
    datasets = _optional("datasets", source)
    try:
        found = datasets.load_dataset(source)
    except Exception as error:  # `datasets` raises many types
        raise DataError(
            f"{source}: neither a file, nor can it be loaded as a hub data set ({error})"
        ) from error
    return _from_dataset(source, found, columns, split)


def _from_dataset(source: str, found: Any, columns: list[str], split: str) -> Columns:
    if hasattr(found, "keys"):  # several splits
        _require(source, [split], list(found.keys()), what="split")
        found = found[split]
    _require(source, columns, list(found.column_names))
    return {name: _objects(list(found[name])) for name in columns}


def _optional(module: str, source: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        raise DataError(
            f"{source}: reading it needs the package {package!r}; "
            "install it with pip install 'fedcert[data]'"
        ) from error


def _require(
    source: str, names: Sequence[str], present: Sequence[str], *, what: str = "column"
) -> None:
    for name in names:
        if name not in present:
            raise DataError(
                f"{source}: no {what} {name!r}; it has {', '.join(present) or 'none at all'}"
            )


def _objects(values: Sequence[Any]) -> npt.NDArray[Any]:
    """Keep each value as it is; NumPy would look into lists."""
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column
