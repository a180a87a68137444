"""Rows of a table that may be incomplete: which are used, and for what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.canonical import digest_tensors
from fedcert.data.cells import missing_cells
from fedcert.data.tables import Columns
from fedcert.errors import DataError

__all__ = ["KeptRows", "alike_rows", "image_items", "kept_rows"]


@dataclass(frozen=True)
class KeptRows:
    """What of a table has a use.

    Attributes
    ----------
    complete : Columns
        The rows that lack nothing.
    unlabeled : Columns
        Those that lack a label alone, if these are wanted.
    notes : tuple of str
        How many rows lack what, and where the first of them stands.
    """

    complete: Columns
    unlabeled: Columns
    notes: tuple[str, ...]


def kept_rows(
    table: Columns, needed: Sequence[str], *, source: str, optional: str = ""
) -> KeptRows:
    """Sort the rows of a table by what they lack.

    Parameters
    ----------
    table : Columns
        All rows.
    needed : sequence of str
        Columns that a row needs.
    source : str
        What the table was read from, for messages.
    optional : str (default: "")
        The column of labels, if rows that lack nothing else are wanted, too.

    Returns
    -------
    KeptRows
        The rows that are used.

    Raises
    ------
    DataError
        If every row lacks something, or most lack what they need.
    """
    complete = np.ones(len(table.numbers), dtype=np.bool_)
    labeled, notes = complete.copy(), []
    for name in dict.fromkeys(needed):
        missing = missing_cells(table[name])
        if name == optional:
            labeled &= ~missing
        else:
            complete &= ~missing
        if not missing.any():
            continue
        empty = (
            f"the column {name!r} is empty in {missing.sum()} of {len(missing)} rows "
            f"({table.where(int(np.argmax(missing)))}, for instance)"
        )
        if 2 * missing.sum() > len(missing) and name != optional:
            raise DataError(f"{source}: {empty}; name another column, or fill it in")
        kept = "are inputs without labels" if name == optional else "are left out"
        notes.append(f"{empty}; they {kept}")
    if not (complete & labeled).any():
        raise DataError(f"{source}: every row lacks one of {', '.join(needed)}")
    return KeptRows(
        table.take(complete & labeled), table.take(complete & ~labeled), tuple(notes)
    )


def image_items(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a name for each image that only equal ones share."""
    items = np.empty(len(images), dtype=object)
    items[:] = [digest_tensors({"image": image}) for image in images]
    return items


def alike_rows(items: npt.NDArray[Any], read: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Say of each row whether one of another item reads the same.

    Parameters
    ----------
    items, read : numpy.ndarray
        Of each row what it is an example of, and what equal inputs share.

    Returns
    -------
    numpy.ndarray
        A boolean for each row.
    """
    found: dict[Any, set[Any]] = {}
    for item, text in zip(items, read, strict=True):
        found.setdefault(text, set()).add(item)
    return np.array([len(found[text]) > 1 for text in read])
