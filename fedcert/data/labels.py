"""Labels: from cells of a column to class names, and from class names to class indices."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.data.cells import is_missing, word, words
from fedcert.data.examples import ALWAYS_WRONG
from fedcert.errors import DataError, RowError, did_you_mean

__all__ = ["alike_labels", "class_names", "encode_labels", "label_words"]

# Nobody reads a longer list of labels in a message.
_MOST_NAMED = 20
# Share of the labels that may be none of the task's; more are a mistake in the file.
_MOST_UNKNOWN = 0.2
# Fewer classes than that may be anything; more, of which most have one example, or that are
# decimal numbers, are the values of a regression.
_FEW_CLASSES = 20


def label_words(cells: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the class names that label cells stand for: objects of ``str``.

    One-hot rows stand for the place of their one, counted from 0.

    Raises
    ------
    RowError
        If a cell is no word, number, or one-hot row.
    """
    places = _one_hot(cells)
    return words(cells if places is None else places)


def class_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the classes that labels name, in order.

    Raises
    ------
    DataError
        If these are no classes: one alone, or the values of a regression.
    """
    counts = Counter(names)
    found = tuple(sorted(counts))
    if len(found) < 2:
        raise DataError(f"has only the labels {list(found)}; a task has two or more")
    if len(found) > _FEW_CLASSES:
        single = sum(count == 1 for count in counts.values())
        decimal = sum(_is_decimal(name) for name in found)
        if 2 * single > len(found) or 2 * decimal > len(found):
            raise DataError(
                f"has {len(found)} different labels ({found[0]}, {found[1]}, ...), {single} of "
                "them once: that is no column of classes; fedcert certifies classification, so "
                "put the values into a few classes first"
            )
    return found


def alike_labels(labels: Sequence[str]) -> list[tuple[str, ...]]:
    """Return groups of labels that a person would take for the same.

    They differ only in case, white space, leading zeros, or Unicode form.
    """
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(_key(label), []).append(label)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def encode_labels(
    cells: Sequence[Any] | npt.NDArray[Any], labels: Sequence[str], *, strict: bool = True
) -> npt.NDArray[np.int64]:
    """Turn label cells into class indices.

    A cell is the name of a class. It may be the index of one, from 0, if no class of the task
    has a number for a name: in a file that counts from 0 what the task counts from 1, every
    label would be another one, and most of them known. A label that is none of the task's
    makes every prediction wrong (`ALWAYS_WRONG`).

    Parameters
    ----------
    cells : sequence
        Words, numbers, or one-hot rows.
    labels : Sequence[str]
        The task's class names.
    strict : bool (default: True)
        Whether to take it for a mistake of the file if labels are unknown that are many, or
        among numbers, and not for examples out of the ordinary.

    Returns
    -------
    numpy.ndarray
        Int, one for each cell.

    Raises
    ------
    RowError
        If a label is missing, or spelled otherwise than the task's, or it is a mistake of the
        file.

    Examples
    --------
    >>> encode_labels(["no", "yes", "no"], ["no", "yes"]).tolist()
    [0, 1, 0]
    """
    places = _one_hot(cells)
    if places is not None and np.shape(cells[0])[0] != len(labels):
        width = np.shape(cells[0])[0]
        raise RowError(0, f"has a one-hot label of {width} classes; the task has {len(labels)}")
    index = {name: position for position, name in enumerate(labels)}
    if not any(_is_number(name) for name in labels):
        index = {str(position): position for position in range(len(labels))} | index
    found = cells if places is None else places
    classes = [_class_of(cell, row, index, labels) for row, cell in enumerate(found)]
    unknown = [row for row, place in enumerate(classes) if place == ALWAYS_WRONG]
    if unknown and strict:
        name, numbers = word(found[unknown[0]]), all(_is_number(word(cell)) for cell in found)
        if numbers:
            raise _unknown(name, unknown[0], labels)
        if len(unknown) > _MOST_UNKNOWN * len(classes):
            raise _unknown(name, unknown[0], labels, of=f"{len(unknown)} of {len(classes)}")
    return np.array(classes, dtype=np.int64)


def _class_of(cell: Any, row: int, index: dict[str, int], labels: Sequence[str]) -> int:
    if is_missing(cell):
        raise RowError(row, f"has no label; the labels of this task are {_listed(labels)}")
    name = word(cell, row=row)
    # A class may have got its name, such as 1.0, from a column of floating-point numbers.
    for spelled in (name, str(cell).strip()):
        if spelled in index:
            return index[spelled]
    if any(_key(label) == _key(name) for label in labels):
        raise _unknown(name, row, labels)
    return ALWAYS_WRONG


def _unknown(name: str, row: int, labels: Sequence[str], *, of: str = "") -> RowError:
    alike = [label for label in labels if _key(label) == _key(name)]
    hint = f"; did you mean {alike[0]!r}?" if alike else did_you_mean(name, labels)
    if alike and _composed(alike[0]) == _composed(name):
        hint += " (it looks the same, and is in another Unicode form)"
    if of:
        # Who takes them out to get a certificate gets one that does not hold.
        hint += (
            f"; {of} rows have such labels: spell them as the task does, but leave in what is "
            "truly outside the task, since without it the others are no sample of what the "
            "model will meet"
        )
    return RowError(
        row,
        f"has the unknown label {name!r}; the labels of this task are {_listed(labels)}{hint}",
    )


def _one_hot(cells: Sequence[Any] | npt.NDArray[Any]) -> npt.NDArray[np.int64] | None:
    """Return the place of each row's one; None if the cells are not one-hot rows."""
    if len(cells) == 0 or np.ndim(cells[0]) != 1 or np.shape(cells[0])[0] < 2:
        return None
    try:
        rows = np.array(list(cells))
    except ValueError:  # not equally long
        return None
    if rows.ndim != 2 or rows.dtype.kind not in "biuf":
        return None
    if not np.isin(rows, (0, 1)).all() or not (rows.sum(axis=1) == 1).all():
        return None
    places: npt.NDArray[np.int64] = np.argmax(rows, axis=1).astype(np.int64)
    return places


def _key(label: str) -> str:
    """Return what labels share that a person would take for the same."""
    collapsed = _composed("".join(label.split())).casefold()
    return format(float(collapsed), ".17g") if _is_number(collapsed) else collapsed


def _composed(text: str) -> str:
    """Return a text in the Unicode form in which an accent and its letter are one character."""
    return unicodedata.normalize("NFC", text)


def _is_number(label: str) -> bool:
    return _as_number(label) is not None


def _is_decimal(label: str) -> bool:
    number = _as_number(label)
    return number is not None and not number.is_integer()


def _as_number(label: str) -> float | None:
    if re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", label.strip(), re.IGNORECASE) is None:
        return None
    try:
        number = float(label)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _listed(labels: Sequence[str]) -> str:
    more = len(labels) - _MOST_NAMED
    return ", ".join(labels[:_MOST_NAMED]) + f" and {more} more" * (more > 0)
