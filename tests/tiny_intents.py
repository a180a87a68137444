"""A small file of requests like CLINC150's, and the scenario on a tiny encoder."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

from tiny_text import BAD, GOOD

from fedcert.randomness import keyed_generator
from fedcert.simulations.clinc import FILE
from fedcert.simulations.scenarios.named_intents import NamedIntents

__all__ = ["TinyNamedIntents", "write_requests"]


def write_requests(folder: Path) -> Path:
    """Write 6 domains of 4 intents, 12 texts each, and a text outside all domains."""
    generator = keyed_generator("tests/named intents")
    with gzip.open(folder / FILE, "wt", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label", "client", "split"])
        for index in range(6 * 4 * 12):
            words = " ".join(generator.choice(GOOD + BAD, 5))
            intent = index % 24
            rows.writerow([words, f"good{intent % 12}_{intent}", f"d{intent % 6}", "train"])
        rows.writerow(["good0 beyond", "oos", "oos", "oos_train"])
    return folder


class TinyNamedIntents(NamedIntents):
    """`NamedIntents` with texts that a tiny encoder takes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        object.__setattr__(self._base.options, "max_length", 8)
