"""Scenario `characters`: everyone has their own idea of which characters are "mine".

The data are Omniglot's characters (Lake et al., Science 2015). A client has ten characters of
one alphabet, by 20 drawers, and calls five of them "mine". Some alphabets serve to pretrain
a small vision transformer, others upstream, and the new clients' alphabets are unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fedcert.data.inputs import ImageInputs
from fedcert.data.tables import Columns, read_columns
from fedcert.errors import SettingsError
from fedcert.randomness import keyed_generator
from fedcert.simulations.natural import NaturalScenario, Rows
from fedcert.simulations.scenarios.digits_base import Pretraining, pretrained_base
from fedcert.simulations.sources import data_file

__all__ = ["Characters"]

FILE = "omniglot28.npz"
GROUP, MINE = 10, 5
_PRETRAINING = Pretraining(patch_size=4, hidden_size=96, epochs=12, learning_rate=1.5e-3)


class Characters(NaturalScenario):
    """Images of handwritten characters, on a small vision transformer made on the spot.

    Parameters
    ----------
    ideas : int (default: 3)
        Upstream clients of each ten characters, each with an idea of its own.
    pretraining : int (default: 8)
        Alphabets, of the 30 background ones, that only pretraining sees.
    data : str (default: "")
        Folder of ``omniglot28.npz``; by default ``$FEDCERT_DATA``.
    upstream, new, seed
        See `NaturalScenario`; `new` is at most the groups of the 20 evaluation alphabets.
    """

    name = "characters"
    description = "Which 5 of these 10 unseen characters are mine? (Omniglot)"
    labels = ("other", "mine")
    inputs = ImageInputs(channels=1, height=28, width=28, low=0.0, high=255.0)
    defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init__(
        self,
        *,
        ideas: int = 3,
        pretraining: int = 8,
        data: str = "",
        upstream: int = 128,
        new: int = 30,
        seed: int = 0,
    ) -> None:
        super().__init__(
            upstream=upstream,
            new=new,
            smallest=GROUP * 20,
            smallest_new=GROUP * 20,
            training_size=0,
            new_size=0,
            support_share=0.5,
            seed=seed,
        )
        if not 1 <= pretraining <= 29 or ideas < 1:
            raise SettingsError("characters: pretraining must be 1 to 29, and ideas at least 1")
        self._ideas, self._pretraining, self._data = ideas, pretraining, data
        self._base_folder: Path | None = None

    def base_model(self, *, on_step: Callable[[str], None] = lambda _: None) -> Path:
        """Return the vision transformer, pretrained on characters that nothing else uses."""
        if self._base_folder is None:
            rows = np.flatnonzero(np.isin(self._table["alphabet"], self._alphabets[0]))
            pairs = np.stack([self._table[name][rows] for name in ("alphabet", "character")])
            classes = np.unique(pairs, axis=1, return_inverse=True)[1].reshape(-1)
            self._base_folder = pretrained_base(
                self.inputs,
                self.inputs.normalize(self._table["images"][rows]),
                classes.astype(np.int64),
                labels=self.labels,
                on_step=on_step,
                settings=_PRETRAINING,
            )
        return self._base_folder

    def _is_new(self, client: str) -> bool | None:
        return client.startswith("new-")

    @cached_property
    def _table(self) -> Columns:
        path = data_file(self.name, self._data, FILE)
        return read_columns(str(path), ["images", "alphabet", "character", "evaluation"])

    @cached_property
    def _alphabets(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
        """Return the alphabets for pretraining, for upstream and for new clients."""
        evaluation = self._table["evaluation"].astype(bool)
        background = np.unique(self._table["alphabet"][~evaluation])
        order = keyed_generator("characters/alphabets", self._seed).permutation(background)
        unseen = np.unique(self._table["alphabet"][evaluation])
        return order[: self._pretraining], order[self._pretraining :], unseen

    @cached_property
    def _rows(self) -> Rows:
        found = [*self._clients(self._alphabets[1], "up", self._ideas)]
        found += self._clients(self._alphabets[2], "new", 1)
        rows = np.concatenate([rows for _, rows, _ in found])
        clients = np.concatenate(
            [np.full(len(rows), name, dtype=object) for name, rows, _ in found]
        )
        items = np.empty(len(rows), dtype=object)
        items[:] = [str(row) for row in rows]
        labels = np.concatenate([labels for _, _, labels in found])
        return Rows(self._table["images"][rows], labels, clients, items)

    def _clients(
        self, alphabets: npt.NDArray[Any], part: str, ideas: int
    ) -> Iterator[tuple[str, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Yield each client's name, rows and labels; characters are shared by `ideas`."""
        for alphabet in sorted(alphabets.tolist()):
            own = self._table["alphabet"] == alphabet
            characters = np.unique(self._table["character"][own])
            generator = keyed_generator("characters/groups", self._seed, alphabet)
            order = generator.permutation(characters)
            for start in range(0, len(order) - GROUP + 1, GROUP):
                group = order[start : start + GROUP]
                rows = np.flatnonzero(own & np.isin(self._table["character"], group))
                for idea in range(ideas):
                    mine = generator.choice(group, MINE, replace=False)
                    labels = np.isin(self._table["character"][rows], mine)
                    name = f"{part}-{alphabet:02d}-{start // GROUP}-{idea}"
                    yield name, rows, labels.astype(np.int64)
