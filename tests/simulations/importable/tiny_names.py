"""A federation whose clients have labels of their own: texts, on a tiny random encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fedcert.data import Examples, TextInputs
from fedcert.randomness import keyed_generator
from fedcert.scenarios import Scenario

__all__ = ["TinyNames"]

WORDS = [f"{kind}{index}" for kind in ("bad", "good") for index in range(8)]


class TinyNames(Scenario):
    """Which of my own words is this text about? Each client has two words that nobody shares.

    Parameters
    ----------
    base : str
        Folder of a base model that classifies by the names of labels.
    upstream, new : int
        Clients of each part.
    """

    name = "tiny-names"
    description = "Which of my words is this about?"
    labels = ()

    def __init__(self, *, base: str, upstream: int = 12, new: int = 2) -> None:
        ids = [f"names-{index:02d}" for index in range(upstream + new)]
        self._upstream, self._new = tuple(ids[:upstream]), tuple(ids[upstream:])
        self._base = base

    @property
    def inputs(self) -> TextInputs:
        return TextInputs.of(self._base, max_length=12)

    @property
    def upstream_clients(self) -> tuple[str, ...]:
        return self._upstream

    @property
    def new_clients(self) -> tuple[str, ...]:
        return self._new

    def labels_of(self, client: str) -> tuple[str, ...]:
        generator = keyed_generator("tiny-names/labels", client)
        return tuple(sorted(generator.choice(WORDS, 2, replace=False).tolist()))

    def base_model(self, **_: Any) -> Path:
        return Path(self._base)

    def training_examples(self, client: str) -> Examples:
        return self._draw("training", client, 40)

    def support_examples(self, client: str, size: int) -> Examples:
        return self._draw("support", client, 40).take(slice(size))

    def test_examples(self, client: str) -> Examples:
        return self._draw("test", client, 60)

    def _draw(self, part: str, client: str, count: int) -> Examples:
        generator = keyed_generator("tiny-names/examples", part, client)
        names, texts, labels = self.labels_of(client), {}, []
        while len(texts) < count:
            label = int(generator.integers(2))
            words = generator.choice(WORDS, 5).tolist()
            texts[" ".join([names[label], *words])] = label
        labels = np.array(list(texts.values()), dtype=np.int64)
        return Examples(np.array(list(texts), dtype=object), labels)
