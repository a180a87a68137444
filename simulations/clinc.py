"""Reading CLINC150: requests to an assistant, with the intent and the domain of each."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import NamedTuple

__all__ = ["FILE", "Request", "read_requests"]

FILE = "clinc150.csv.gz"


class Request(NamedTuple):
    """One text with its intent, and the domain of the intent."""

    text: str
    intent: str
    domain: str


def read_requests(path: Path) -> list[Request]:
    """Read the distinct texts, those outside all domains left out.

    A text that stands there twice counts once, with the intent named first.
    """
    found: dict[str, Request] = {}
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            key = " ".join(row["text"].split()).casefold()
            if row["label"] != "oos":
                found.setdefault(key, Request(row["text"], row["label"], row["client"]))
    return list(found.values())
