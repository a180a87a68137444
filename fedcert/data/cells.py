"""What a cell of a table means, whatever file it comes from: missing, a word, or numbers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.errors import RowError, shown

__all__ = [
    "check_texts",
    "is_missing",
    "missing_cells",
    "numbers_if_all",
    "shape_of",
    "stack_numbers",
    "word",
    "words",
]

_LONGEST = 120


def is_missing(cell: object) -> bool:
    """Say whether a cell holds nothing: null, NaN, or nothing but white space.

    Words such as "NA" and "None" are words.
    """
    if cell is None:
        return True
    if isinstance(cell, str | bytes):
        return not cell.strip()
    if isinstance(cell, np.datetime64):
        return bool(np.isnat(cell))
    return isinstance(cell, float | np.floating) and bool(np.isnan(cell))


def missing_cells(cells: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Say of each cell whether it is missing."""
    return np.array([is_missing(cell) for cell in cells], dtype=np.bool_)


def word(cell: Any, *, row: int = 0) -> str:
    """Return a label or a name as text, without white space around it.

    A number reads the same whatever type it has: 1.0 as 1, since a column with a missing
    cell has become one of floating-point numbers on its way.

    Raises
    ------
    RowError
        Of `row`, if it is a list, a record, or no text that can be written down.
    """
    value = cell.tolist() if isinstance(cell, np.generic | np.ndarray) else cell
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="surrogateescape")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, list | tuple | dict | set):
        raise RowError(row, f"holds {shown(value)} where one word or number belongs")
    text = str(value).strip()
    if _lone_surrogate(text):
        raise RowError(row, f"holds half of a character (a lone surrogate) in {shown(text)}")
    return text


def words(cells: Sequence[Any] | npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return labels or names as an array of ``str`` objects; see `word`."""
    found = np.empty(len(cells), dtype=object)
    found[:] = [word(cell, row=row) for row, cell in enumerate(cells)]
    return found


def check_texts(cells: Sequence[Any] | npt.NDArray[Any]) -> None:
    """Make sure that cells are texts that can be written down.

    Raises
    ------
    RowError
        Of the first one that is not.
    """
    for row, cell in enumerate(cells):
        if not isinstance(cell, str):
            raise RowError(
                row,
                "holds nothing where a text belongs"
                if is_missing(cell)
                else f"is not a text but {type(cell).__name__}; this model takes texts",
            )
        if _lone_surrogate(cell):
            raise RowError(row, "holds half of a character (a lone surrogate)")


def stack_numbers(cells: npt.NDArray[Any], *, noun: str = "image") -> npt.NDArray[np.float64]:
    """Return cells that are grids of numbers, all of one shape, as one array.

    Raises
    ------
    RowError
        Of the first cell that is no such grid, or has another shape than the first one.
    """
    if cells.dtype != object:
        try:
            return cells.astype(np.float64)
        except (TypeError, ValueError) as error:
            reason = f"holds something else than numbers: {_brief(error)}"
            raise RowError(0, reason, noun=noun) from error
    grids = [_grid(cell, row, noun) for row, cell in enumerate(cells)]
    for row, grid in enumerate(grids):
        if grid.shape != grids[0].shape:
            raise RowError(
                row,
                f"has the shape {grid.shape}, and the first one {grids[0].shape}",
                noun=noun,
            )
    return np.stack(grids) if grids else np.empty(0)


def numbers_if_all(cells: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return cells as one array of numbers if they are none but grids of one shape."""
    if cells.dtype == object and not any(isinstance(cell, str) for cell in cells):
        with suppress(RowError):
            return stack_numbers(cells)
    return cells


def shape_of(cell: Any) -> tuple[int, ...]:
    """Return the shape of a grid; () for what is none."""
    try:
        return np.shape(cell)
    except ValueError:  # ragged
        return ()


def _grid(cell: Any, row: int, noun: str) -> npt.NDArray[np.float64]:
    try:
        return np.asarray(cell, dtype=np.float64)
    except (TypeError, ValueError) as error:
        if "inhomogeneous" in str(error):
            reason = "is ragged: its rows are not equally long"
        else:
            reason = f"holds something else than numbers: {_brief(error)}"
        raise RowError(row, reason, noun=noun) from error


def _lone_surrogate(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)


def _brief(error: Exception) -> str:
    """Return what an error says, without the rest of a long cell."""
    text = str(error)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
