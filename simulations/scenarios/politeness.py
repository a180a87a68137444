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
from fedcert.simulations.natural import NaturalScenario, Rows
from fedcert.simulations.sources import OnTextBase, TextBase, data_file

__all__ = ["Politeness"]

FILE = "politeness.csv.gz"


class Politeness(OnTextBase, NaturalScenario):
    """Requests, judged by natural clients, on a pretrained text encoder.

    Parameters
    ----------
    data : str (default: "")
        Folder of ``politeness.csv.gz``; by default ``$FEDCERT_DATA``.
    base : str (default: "")
        Folder or hub id of a pretrained text model; by default MiniLM.
    upstream, new, smallest, smallest_new, training_size, new_size, support_share, seed
        See `NaturalScenario`.
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
        upstream: int = 0,
        new: int = 15,
        smallest: int = 60,
        smallest_new: int = 180,
        training_size: int = 200,
        new_size: int = 240,
        support_share: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__(
            upstream=upstream,
            new=new,
            smallest=smallest,
            smallest_new=smallest_new,
            training_size=training_size,
            new_size=new_size,
            support_share=support_share,
            seed=seed,
        )
        self._data = data
        self._base = TextBase(self.name, base, labels=self.labels, max_length=64)

    @cached_property
    def _rows(self) -> Rows:
        path = data_file(self.name, self._data, FILE)
        table = read_columns(str(path), ["text", "label", "client", "item"])
        labels = np.array([int(label) for label in table["label"]], dtype=np.int64)
        return Rows(table["text"], labels, table["client"], table["item"])
