"""Scenario `politeness`: annotators who disagree about which requests are polite.

The data are the requests of the Stanford Politeness Corpus (Danescu-Niculescu-Mizil et al.,
ACL 2013), each scored by five annotators. Every annotator is a client with a judgment of
their own; all requests of the new annotators are unseen upstream.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from fedcert.data.tables import read_columns
from fedcert.simulations.natural import NaturalScenario, Rows, Split
from fedcert.simulations.sources import BaseOptions, OnTextBase, TextBase, data_file

__all__ = ["Politeness"]

FILE = "politeness.csv.gz"
_SPLIT = Split(new=15, smallest=60, smallest_new=180, training_size=200, new_size=240)


class Politeness(OnTextBase, NaturalScenario):
    """Requests, judged by natural clients, on a pretrained text encoder.

    Parameters
    ----------
    data : str (default: "")
        Folder of ``politeness.csv.gz``; by default ``$FEDCERT_DATA``.
    base : str (default: "")
        Folder or hub id of a pretrained text model; by default MiniLM.
    split : Split
        Options of the split of rows and clients.
    """

    name = "politeness"
    description = "Is this request polite, in this annotator's judgment? (Stanford Politeness)"
    labels = ("not polite", "polite")
    defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "training": {"learning_rate": 0.1, "weight_decay": 0.01}
    }

    def __init__(
        self,
        *,
        data: str = "",
        base: str = "",
        split: Split = _SPLIT,
    ) -> None:
        super().__init__(split)
        self._data = data
        self._base = TextBase(self.name, BaseOptions(base, max_length=64), self.labels)

    @cached_property
    def _rows(self) -> Rows:
        path = data_file(self.name, self._data, FILE)
        table = read_columns(str(path), ["text", "label", "client", "item"])
        labels = np.array([int(label) for label in table["label"]], dtype=np.int64)
        return Rows(table["text"], labels, table["client"], table["item"])
