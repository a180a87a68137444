"""Scenario `topics`: news topics in languages that nobody had before.

The data are the articles of MasakhaNEWS (Adelani et al., 2023) in 16 languages. The articles
of a language are dealt out to clients; all clients of the held-out languages are new.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fedcert.data.tables import read_columns
from fedcert.errors import DataError, SettingsError
from fedcert.randomness import keyed_generator
from fedcert.simulations.natural import NaturalScenario, Rows, Split, text_items
from fedcert.simulations.sources import BaseOptions, OnTextBase, TextBase, data_file

__all__ = ["Topics"]

FILE = "masakhanews.csv.gz"
_HALF = "half"


class Topics(OnTextBase, NaturalScenario):
    """News articles of clients in many languages, on a pretrained text encoder.

    Parameters
    ----------
    held_out : str (default: "ibo,pcm,sna")
        Languages of the new clients, separated by commas; ``"half"`` holds out none, and every
        other client of each language is new.
    client_size : int (default: 150)
        Articles that a client gets.
    concentration : float (default: 0)
        Of the Dirichlet distribution from which each client's shares of the topics are drawn,
        as far as its language has articles left; 0 deals articles out without regard to them.
    data : str (default: "")
        Folder of ``masakhanews.csv.gz``; by default ``$FEDCERT_DATA``.
    base : str (default: "")
        Folder or hub id of a pretrained text model; by default MiniLM, which knows English
        best.
    upstream, new, seed, reference
        See `fedcert.simulations.natural.Split`.
    """

    name = "topics"
    description = "What is this article about, in a language unseen upstream? (MasakhaNEWS)"
    labels = (
        "business",
        "entertainment",
        "health",
        "politics",
        "religion",
        "sports",
        "technology",
    )
    defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "training": {"learning_rate": 0.1, "weight_decay": 0.01}
    }

    def __init__(
        self,
        *,
        held_out: str = "ibo,pcm,sna",
        client_size: int = 150,
        concentration: float = 0.0,
        data: str = "",
        base: str = "",
        upstream: int = 100,
        new: int = 20,
        seed: int = 0,
        reference: int = 0,
    ) -> None:
        super().__init__(
            Split(
                upstream,
                new,
                smallest=client_size,
                smallest_new=client_size,
                new_size=0,
                support_share=0.55,
                seed=seed,
                reference=reference,
            )
        )
        self._data, self._client_size = data, client_size
        if concentration < 0:
            raise SettingsError("topics: concentration must not be negative")
        self._concentration, self._half = concentration, held_out.strip() == _HALF
        named = () if self._half else held_out.split(",")
        self._held_out = frozenset(name.strip() for name in named)
        self._base = TextBase(self.name, BaseOptions(base, max_length=64), self.labels)

    def _is_new(self, client: str) -> bool | None:
        language, _, number = client.partition("-")
        return int(number) % 2 == 1 if self._half else language in self._held_out

    @cached_property
    def _rows(self) -> Rows:
        path = data_file(self.name, self._data, FILE)
        table = read_columns(str(path), ["text", "label", "client"])
        unknown = sorted(set(table["label"]) - set(self.labels))
        if unknown:
            raise DataError(f"{path}: the label {unknown[0]!r} is none of the seven topics")
        missing = sorted(self._held_out - set(table["client"]))
        if missing:
            raise SettingsError(
                f"topics: there is no language {missing[0]!r}; "
                f"choose among {', '.join(sorted(set(table['client'])))}"
            )
        items = text_items(table["text"])
        # An article that stands there twice counts once.
        rows = np.unique(items.astype(str), return_index=True)[1]
        labels = np.array([self.labels.index(label) for label in table["label"][rows]])
        clients = self._dealt(table["client"][rows], labels)
        return Rows(table["text"][rows], labels, clients, items[rows])

    def _dealt(
        self, languages: npt.NDArray[Any], labels: npt.NDArray[np.int64]
    ) -> npt.NDArray[Any]:
        """Deal out each language's articles to clients of equal size."""
        clients = np.empty(len(languages), dtype=object)
        for language in sorted(set(languages)):
            rows = np.flatnonzero(languages == language)
            order = keyed_generator("topics/deal", self._split.seed, language).permutation(rows)
            if self._concentration:
                order = self._by_topic(order, labels, language)
            for place, row in enumerate(order):
                clients[row] = f"{language}-{place // self._client_size:02d}"
        return clients

    def _by_topic(
        self, rows: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], language: str
    ) -> npt.NDArray[np.int64]:
        """Order a language's articles so that each client in turn has topics of its own."""
        draw = keyed_generator("topics/shares", self._split.seed, language)
        left = [list(rows[labels[rows] == label]) for label in range(len(self.labels))]
        order: list[np.int64] = []
        while len(order) < len(rows):
            shares = draw.dirichlet(np.full(len(left), self._concentration))
            for _ in range(min(self._client_size, len(rows) - len(order))):
                # A share may be too small for a float; whoever has articles has some share.
                there = np.array(
                    [max(s, 1e-12) if p else 0.0 for s, p in zip(shares, left, strict=True)]
                )
                order.append(left[draw.choice(len(left), p=there / there.sum())].pop())
        return np.array(order)
