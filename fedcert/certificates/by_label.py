"""Which labels an adapter got wrong where it was certified: a note beside the record.

The note stays with the client, unsigned and uncertified: a bound holds for all labels together,
and the few examples of one label prove little about it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedcert.atomic import write_json
from fedcert.certificates.record import Certificate

__all__ = [
    "ERRORS_FILE",
    "ErrorsByLabel",
    "count_by_label",
    "describe_by_label",
    "read_by_label",
    "write_by_label",
]

ERRORS_FILE = "errors-by-label.json"
_FORMAT = "fedcert.errors-by-label/1"

ErrorsByLabel = Mapping[str, tuple[int, int]]
"""By label, how many of its certifying examples were wrong, and how many there were."""


def count_by_label(
    labels: npt.NDArray[np.integer],
    wrong: npt.NDArray[np.bool_],
    names: Sequence[str],
) -> ErrorsByLabel:
    """Count the certifying examples of each label, and the wrong ones among them.

    Parameters
    ----------
    labels : numpy.ndarray
        Their labels, as places in `names`. Below 0 an example has none of them, such as a row
        that cannot be read: it counts as wrong, and here for no label.
    wrong : numpy.ndarray
        Which predictions count as errors.
    names : sequence of str
        The labels' names.

    Returns
    -------
    Mapping
        The labels that occur, in the order of `names`.
    """
    named = labels >= 0
    every = np.bincount(labels[named], minlength=len(names)).tolist()
    amiss = np.bincount(labels[named & wrong], minlength=len(names)).tolist()
    return {
        name: (amiss[place], count)
        for place, (name, count) in enumerate(zip(names, every, strict=True))
        if count
    }


def describe_by_label(counts: ErrorsByLabel, *, most: int = 8) -> str:
    """Say which labels were wrong, the most frequent first: 'b 3 of 7, a 1 of 9'.

    Parameters
    ----------
    counts : Mapping
        From `count_by_label`.
    most : int (default: 8)
        Labels that are named at most.
    """
    amiss = sorted(
        ((name, wrong, every) for name, (wrong, every) in counts.items() if wrong),
        key=lambda row: -row[1],
    )
    if not amiss:
        return "none was wrong"
    told = [f"{name} {wrong} of {every}" for name, wrong, every in amiss[:most]]
    if rest := amiss[most:]:
        told.append(f"{sum(wrong for _, wrong, _ in rest)} of {len(rest)} other labels")
    return ", ".join(told)


def write_by_label(folder: Path, certificate: Certificate, counts: ErrorsByLabel) -> None:
    """Write the counts into the folder of a certificate, bound to it by its digest.

    Parameters
    ----------
    folder : Path
        Where the certificate is, or will be.
    certificate : Certificate
        The one that they belong to.
    counts : Mapping
        From `count_by_label`.
    """
    write_json(
        folder / ERRORS_FILE,
        {
            "format": _FORMAT,
            "certificate": certificate.digest,
            "labels": {name: list(pair) for name, pair in counts.items()},
        },
    )


def read_by_label(folder: Path, certificate: Certificate) -> ErrorsByLabel | None:
    """Read the counts of this very certificate; None if there are none that fit it."""
    try:
        note = json.loads((folder / ERRORS_FILE).read_bytes())
        if (note["format"], note["certificate"]) != (_FORMAT, certificate.digest):
            return None
        counts = {
            str(name): (int(pair[0]), int(pair[1])) for name, pair in note["labels"].items()
        }
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return None
    totals = [sum(column) for column in zip(*counts.values(), strict=True)]
    unlabeled = 0 if certificate.sample is None else certificate.sample.unreadable
    counted = (certificate.errors, certificate.certified_on)
    return counts if totals == [number - unlabeled for number in counted] else None
