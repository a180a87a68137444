"""Columns of a table, cell by cell: CSV, JSON lines, Parquet, NPZ, or a `datasets` data set.

The only place that reads such files. What a cell means is said in `fedcert.data.cells`.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.errors import DataError, RowError, did_you_mean

__all__ = ["FILE_TYPES", "Columns", "read_columns", "require_columns"]

# An image may have a column for each value; nobody wants to read all of them in a message.
_MOST_NAMED = 10
_DELIMITERS = (",", ";", "\t")
_PICTURES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Columns:
    """Some columns of a table.

    Attributes
    ----------
    source : str
        Where they come from.
    values : dict of str to numpy.ndarray
        Cells by column, equally many in each, as they stand there; all but numeric arrays
        hold objects.
    numbers : numpy.ndarray
        Where each row stands in the source, counted from 1.
    unit : str (default: "row")
        What is counted: ``"line"`` for lines of a text file.
    """

    source: str
    values: dict[str, npt.NDArray[Any]]
    numbers: npt.NDArray[np.int64]
    unit: str = "row"

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """Return the cells of a column."""
        return self.values[name]

    def take(self, rows: npt.NDArray[Any]) -> Columns:
        """Return the rows at some indices, or under a mask."""
        values = {name: cells[rows] for name, cells in self.values.items()}
        return Columns(self.source, values, self.numbers[rows], self.unit)

    def where(self, row: int) -> str:
        """Say where a row stands in the source: "line 17"."""
        return f"{self.unit} {self.numbers[row]}"

    @contextmanager
    def located(self) -> Iterator[None]:
        """Let the errors of a block that looks at all rows name the source and the line."""
        try:
            yield
        except RowError as error:
            raise DataError(f"{self.source}: {self.where(error.row)} {error.reason}") from error
        except DataError as error:
            raise DataError(f"{self.source}: {error}") from error


def read_columns(
    source: str,
    columns: Sequence[str],
    *,
    split: str = "train",
    rest: str = "",
    without: Sequence[str] = (),
) -> Columns:
    """Read some columns of a table.

    Parameters
    ----------
    source : str
        A file ``.csv``, ``.tsv``, ``.jsonl`` (each may end in ``.gz``), ``.parquet`` or
        ``.npz``; a folder that ``datasets`` saved; or the hub id of a data set. A CSV file may
        also be separated by semicolons or tabs.
    columns : Sequence[str]
        Which columns; each has to be there.
    split : str (default: "train")
        Which part of a `datasets` data set that has several.
    rest : str (default: "")
        A column that a CSV file may lack; its cells are then lists of what stands in all the
        columns that are not asked for.
    without : Sequence[str], optional
        Columns that do not belong to `rest` either, if the file has them.

    Returns
    -------
    Columns
        The cells of each column, and the line that each row stands on.

    Raises
    ------
    DataError
        If it cannot be read, is empty, or lacks a column.
    """
    wanted = list(dict.fromkeys([*columns, *filter(None, [rest])]))
    read = _reader(Path(source), split, rest, without)
    try:
        table = read(source, wanted)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source}: cannot be read, since it is not UTF-8 text ({error}); save it as UTF-8"
        ) from error
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise DataError(f"{source}: cannot be read ({error})") from error
    lengths = {name: len(cells) for name, cells in table.values.items()}
    if len(set(lengths.values())) != 1:
        raise DataError(f"{source}: its columns are not equally long: {lengths}")
    if not len(table.numbers):
        raise DataError(f"{source}: holds no examples")
    return table


def require_columns(
    source: str,
    names: Sequence[str],
    present: Sequence[str],
    *,
    what: str = "column",
    hint: str = "",
) -> None:
    """Make sure that columns are there, once each.

    Parameters
    ----------
    source : str
        What has them, for the message.
    names, present : Sequence[str]
        What has to be there, and what is.
    what : str (default: "column")
        What they are.
    hint : str (default: "")
        More to say, if one is not there.

    Raises
    ------
    DataError
        Naming the one that is not, those that are, and which of them may be meant.
    """
    for name in names:
        if present.count(name) > 1:
            raise DataError(
                f"{source}: it has {present.count(name)} {what}s {name!r}; keep one"
            )
        if name not in present:
            shown = ", ".join(present[:_MOST_NAMED]) or "none at all"
            if (more := len(present) - _MOST_NAMED) > 0:
                shown += f" and {more} more"
            if hint:
                shown += f"; {hint}"
            raise DataError(
                f"{source}: no {what} {name!r}; it has {shown}{did_you_mean(name, present)}"
            )


_Reader = Callable[[str, list[str]], Columns]


def _reader(path: Path, split: str, rest: str, without: Sequence[str]) -> _Reader:
    if path.is_dir():
        return partial(_saved, split=split)
    kind = Path(path.name.removesuffix(".gz")).suffix.lower()
    if path.is_file() and kind in (".csv", ".tsv"):
        return partial(_csv, rest=rest, without=without)
    if path.is_file() and kind in _READERS:
        return _READERS[kind]
    if path.is_file():
        raise DataError(f"{path}: unknown file type; use one of {', '.join(FILE_TYPES)}")
    if kind not in FILE_TYPES and len(path.parts) == 2 and not path.is_absolute():
        return partial(_hub, split=split)
    raise DataError(f"{path}: no such file")


def _lines(source: str) -> str:
    # utf-8-sig: spreadsheets put a byte order mark in front.
    if source.endswith(".gz"):
        with gzip.open(source, "rt", encoding="utf-8-sig", newline="") as file:
            return str(file.read())
    with Path(source).open(encoding="utf-8-sig", newline="") as file:
        return file.read()


def _csv(source: str, columns: list[str], *, rest: str, without: Sequence[str]) -> Columns:
    text = _lines(source)
    needed = [name for name in columns if name != rest]
    rows = _records(text, _delimiter(text, columns))
    header = next(rows, (1, []))[1]
    spread = bool(rest) and rest not in header
    require_columns(source, needed if spread else columns, header)
    table, numbers = [], []
    for number, row in rows:
        if len(row) != len(header):
            raise DataError(
                f"{source}: line {number} has another number of fields than the header "
                f"({len(row)} instead of {len(header)})"
            )
        table.append(row)
        numbers.append(number)
    places = {name: header.index(name) for name in (needed if spread else columns)}
    values = {name: _objects([row[at] for row in table]) for name, at in places.items()}
    if spread:
        taken = {*needed, *without}
        others = [at for at, name in enumerate(header) if name not in taken]
        cells = [[row[at] for at in others] for row in table]
        if table and not any(map(_are_numbers, cells)):
            hint = f"nor are the other columns numbers: line {numbers[0]} has "
            hint += _words_shown([header[at] for at in others], cells[0])
            require_columns(source, [rest], header, hint=hint)
        values[rest] = _objects(cells)
    return Columns(source, values, np.array(numbers, dtype=np.int64), "line")


def _words_shown(names: list[str], fields: list[str]) -> str:
    """Show fields that are no numbers, with their columns: an image has many that are."""
    pairs = zip(names, fields, strict=True)
    found = [f"{field!r} in {name!r}" for name, field in pairs if not _are_numbers([field])]
    more = f" and {len(found) - _MOST_NAMED} more" * (len(found) > _MOST_NAMED)
    return f"{', '.join(found[:_MOST_NAMED]) or 'nothing in them'}{more}"


def _are_numbers(fields: list[str]) -> bool:
    try:
        return bool([float(field) for field in fields])
    except ValueError:
        return False


def _records(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield records that are not blank, with the line of the file in which each begins."""
    # A field is as long as it is: texts are cut by tokens, where they are read.
    csv.field_size_limit(max(len(text), csv.field_size_limit()))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    begins = 1
    for row in reader:
        if row:
            yield begins, row
        begins = reader.line_num + 1


def _delimiter(text: str, columns: list[str]) -> str:
    """Return what separates the fields of the header: where most of the columns are found."""

    def found(delimiter: str) -> int:
        header = next(_records(text, delimiter), (1, []))[1]
        return len({*columns} & {*header})

    return max(_DELIMITERS, key=found)  # the first one, if they are equally good


def _jsonl(source: str, columns: list[str]) -> Columns:
    rows, numbers = [], []
    # Not splitlines, which also splits at U+2028 and others that JSON strings may hold.
    for number, line in enumerate(_lines(source).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", error)
            raise DataError(f"{source}: line {number} is not JSON ({reason})") from error
        if not isinstance(row, dict):
            raise DataError(
                f"{source}: line {number} is not a JSON object with the keys "
                f"{', '.join(map(repr, columns))}"
            )
        require_columns(f"{source}: line {number}", columns, list(row))
        rows.append(row)
        numbers.append(number)
    values = {name: _objects([row[name] for row in rows]) for name in columns}
    return Columns(source, values, np.array(numbers, dtype=np.int64), "line")


def _npz(source: str, columns: list[str]) -> Columns:
    if not zipfile.is_zipfile(source):  # NumPy would take it for a pickle
        raise DataError(f"{source}: not a readable NPZ file (numpy.savez writes such files)")
    try:
        with np.load(source, allow_pickle=False) as arrays:
            require_columns(source, columns, arrays.files)
            values = {name: arrays[name] for name in columns}
    except DataError:
        raise
    except Exception as error:  # NumPy raises many types on a damaged archive
        if "Object arrays" in str(error):  # other words say that it is no archive
            raise DataError(
                f"{source}: an array of Python objects, which only a pickle holds; give "
                "numpy.savez arrays of numbers and of strings"
            ) from None
        raise DataError(f"{source}: not a readable NPZ file ({error})") from error
    for name, array in values.items():
        if array.ndim == 0:
            raise DataError(f"{source}: the array {name!r} is one value, not one per example")
        if array.dtype.kind == "S":  # bytes
            values[name] = np.char.decode(array, "utf-8")
    return _counted(source, values)


def _parquet(source: str, columns: list[str]) -> Columns:
    parquet = _optional("pyarrow.parquet", source)
    try:
        file = parquet.ParquetFile(source)
        require_columns(source, columns, list(file.schema_arrow.names))
        table = file.read(columns=columns)
    except DataError:
        raise
    except Exception as error:  # pyarrow's own types, which may not be importable here
        raise DataError(f"{source}: not a readable Parquet file ({error})") from error
    return _counted(source, {n: _objects(table.column(n).to_pylist()) for n in columns})


_READERS: dict[str, _Reader] = {".jsonl": _jsonl, ".npz": _npz, ".parquet": _parquet}
FILE_TYPES = (".csv", ".tsv", *_READERS)
"""Endings of the files that can be read."""


def _saved(source: str, columns: list[str], *, split: str) -> Columns:
    _refuse_pictures(Path(source))
    datasets = _optional("datasets", source)
    try:
        found = datasets.load_from_disk(source)
    except Exception as error:  # `datasets` raises many types
        raise DataError(f"{source}: not a folder that `datasets` saved ({error})") from error
    return _from_dataset(source, found, columns, split)


def _refuse_pictures(folder: Path) -> None:
    """Raise `DataError` for a folder of pictures: `datasets` saves no such folder."""
    picture = next(
        (file for file in folder.rglob("*") if file.suffix.lower() in _PICTURES), None
    )
    if picture is not None:
        raise DataError(
            f"{folder}: a folder of pictures ({picture.relative_to(folder)}); make one .npz "
            "file of them, with input, label, and client: docs/own.md has the lines"
        )


def _hub(source: str, columns: list[str], *, split: str) -> Columns:
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
        require_columns(source, [split], list(found.keys()), what="split")
        found = found[split]
    require_columns(source, columns, list(found.column_names))
    return _counted(source, {n: _objects(_named(found, n)) for n in columns})


def _named(found: Any, column: str) -> list[Any]:
    """Return the cells of a column; those of a class label by name, and -1 as missing."""
    cells = list(found[column])
    names = getattr((getattr(found, "features", None) or {}).get(column), "names", None)
    if names is None:
        return cells
    return [None if cell is None or cell < 0 else names[cell] for cell in cells]


def _counted(source: str, values: dict[str, npt.NDArray[Any]]) -> Columns:
    longest = max(len(cells) for cells in values.values())
    return Columns(source, values, np.arange(1, longest + 1))


def _optional(module: str, source: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        raise DataError(
            f"{source}: reading it needs the package {package!r}; "
            "install it with pip install 'fedcert[data]'"
        ) from error


def _objects(values: Sequence[Any]) -> npt.NDArray[Any]:
    """Keep each value as it is; NumPy would look into lists."""
    column = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        column[row] = value
    return column
