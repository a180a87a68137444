"""Scenario `named-intents`: everyone has intents of their own, with names.

The data are the requests to an assistant of CLINC150 (Larson et al., EMNLP 2019): 150 intents
in 10 domains. Each client tells K intents apart that are its own, and whose names it knows.
In the setting *mixed* these are any intents, and new clients have intents that no upstream
client has. In the setting *domain* they are of one domain, and new clients are in domains that
no upstream client is in.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fedcert.data.examples import Examples
from fedcert.errors import DataError, SettingsError
from fedcert.randomness import keyed_generator
from fedcert.scenarios import Scenario
from fedcert.simulations.clinc import FILE, read_requests
from fedcert.simulations.sources import BaseOptions, OnTextBase, TextBase, data_file

__all__ = ["NamedIntents"]

# By setting: how many intents a client has.
WAYS = {"mixed": 5, "domain": 10}
# Of the intents (mixed), or of the domains, those that only new clients have: one third.
UNSEEN = 1 / 3
# And those that only planning clients have, if there are such clients: few, since who trains
# is without them.
PLANNED = 1 / 10
# Better than the name alone, in both settings, on upstream clients of a seed that nothing else
# is measured on.
TEMPLATE = "a request about {label}"
# Share of a new client's texts that support sets are drawn from; the rest is for tests.
SUPPORT = 0.6


class NamedIntents(OnTextBase, Scenario):
    """Requests under the labels of each client, on a sentence encoder.

    Parameters
    ----------
    setting : str (default: "mixed")
        ``"mixed"``: intents of any domain. ``"domain"``: intents of one domain.
    ways : int (default: 0)
        Intents of a client; 0 for 5 (mixed) or 10 (domain).
    upstream : int (default: 128)
        Upstream clients.
    new : int (default: 40)
        New clients; no upstream client has any of their intents.
    planners : int (default: 0)
        The last so many upstream clients have intents that no other client has, and plan
        before others do: to what was trained they are as strange as new clients.
    training_size : int (default: 200)
        Texts that an upstream client trains on.
    test_size : int (default: 400)
        Most texts that measure a new client's true error.
    template : str (default: "a request about {label}")
        The text that is embedded for an intent.
    data : str (default: "")
        Folder of ``clinc150.csv.gz``; by default ``$FEDCERT_DATA``.
    base : str (default: "")
        Folder or hub id of a sentence encoder; by default MiniLM.
    depth : int (default: 0)
        How many layers of it are kept; 0 for all.
    quantization : str (default: "none")
        ``"int8"`` keeps its weights in eight bits.
    seed : int (default: 0)
        Draws what is unseen, the clients' intents, and each client's examples.
    """

    name = "named-intents"
    description = "Which of my own intents, known by their names, is this request? (CLINC150)"
    labels = ()  # each client has its own
    defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # As good as 60 steps of 128 texts at .01, in a third of the time (also found upstream).
        "training": {"steps": 24, "batch_size": 64, "learning_rate": 0.1, "weight_decay": 0.01},
        # The encoder is read at all tokens, so a candidate takes ten times as long as one of a
        # head on the first token, and adapters of 33 numbers hardly differ.
        "certificate": {"recipe": "planned", "candidates": 100},
        "planning": {"most": 8, "sizes": "16,32,64,128"},
        "evaluation": {"baselines": False},
    }

    def __init__(
        self,
        *,
        setting: str = "mixed",
        ways: int = 0,
        upstream: int = 128,
        new: int = 40,
        planners: int = 0,
        training_size: int = 200,
        test_size: int = 400,
        template: str = TEMPLATE,
        data: str = "",
        base: str = "",
        depth: int = 0,
        quantization: str = "none",
        seed: int = 0,
    ) -> None:
        if setting not in WAYS:
            raise SettingsError(
                f"named-intents: there is no setting {setting!r}; choose {' or '.join(WAYS)}"
            )
        if ways and ways < 2:
            raise SettingsError("named-intents: ways must be at least 2, or 0")
        if upstream < 1 or new < 1 or training_size < 1 or test_size < 1:
            raise SettingsError(
                "named-intents: upstream, new, training_size and test_size must be at least 1"
            )
        if not 0 <= planners < upstream:
            raise SettingsError(
                f"named-intents: of {upstream} upstream clients {planners} cannot be planners; "
                f"choose 0 to {upstream - 1}, so that somebody trains"
            )
        self._setting, self._ways = setting, ways or WAYS[setting]
        ids = [f"named-intents-{index:04d}" for index in range(upstream + new)]
        self._upstream, self._new = tuple(ids[:upstream]), tuple(ids[upstream:])
        self._planning = self._upstream[upstream - planners :]
        self._sizes = {"training": training_size, "test": test_size}
        self._seed, self._data = seed, data
        options = BaseOptions(base, max_length=64, quantization=quantization, depth=depth)
        self._base = TextBase("named-intents", options, (), label_template=template)

    @property
    def upstream_clients(self) -> tuple[str, ...]:
        """Ids of the clients that train."""
        return self._upstream

    @property
    def planning_clients(self) -> tuple[str, ...]:
        """Ids of the upstream clients whose intents no other has."""
        return self._planning

    @property
    def new_clients(self) -> tuple[str, ...]:
        """Ids of the clients that personalize."""
        return self._new

    def labels_of(self, client: str) -> tuple[str, ...]:
        """Return the names of a client's intents by index, in alphabetical order."""
        if client not in (*self._upstream, *self._new):
            raise DataError(f"named-intents has no client {client!r}")
        groups = [g for g in self._groups[self._part_of(client)] if len(g) >= self._ways]
        if not groups:
            raise SettingsError(
                f"named-intents: no client can have {self._ways} intents of its own here; set "
                "fewer ways"
            )
        generator = keyed_generator("named-intents/labels", self._setting, self._seed, client)
        group = groups[int(generator.integers(len(groups)))]
        return tuple(sorted(generator.choice(group, self._ways, replace=False).tolist()))

    def _part_of(self, client: str) -> str:
        if client in self._new:
            return "new"
        return "planning" if client in self._planning else "training"

    def training_examples(self, client: str) -> Examples:
        """Return an upstream client's own draw of texts of its intents."""
        return self._drawn(client, "training", self._pool(client, 0.0, 1.0))

    def support_examples(self, client: str, size: int) -> Examples:
        """Return the first `size` texts of the client's own order of its support texts."""
        pool = self._pool(client, 0.0, SUPPORT)
        if not 1 <= size <= len(pool):
            raise DataError(
                f"named-intents can give 1 to {len(pool)} support examples, not {size}"
            )
        generator = keyed_generator("named-intents/support", self._seed, client)
        return self._labeled(client, generator.permutation(pool)[:size])

    def test_examples(self, client: str) -> Examples:
        """Return texts of the client's intents that are in no support set."""
        return self._drawn(client, "test", self._pool(client, SUPPORT, 1.0))

    def _drawn(self, client: str, what: str, pool: npt.NDArray[np.int64]) -> Examples:
        generator = keyed_generator(f"named-intents/{what}", self._seed, client)
        count = min(self._sizes[what], len(pool))
        return self._labeled(client, generator.choice(pool, count, replace=False))

    def _labeled(self, client: str, rows: npt.NDArray[np.int64]) -> Examples:
        texts, intents, _ = self._table
        names = self.labels_of(client)
        labels = np.array([names.index(intents[row]) for row in rows], dtype=np.int64)
        return Examples(texts[rows], labels)

    def _pool(self, client: str, start: float, stop: float) -> npt.NDArray[np.int64]:
        """Return the rows of a client's intents, of each intent the part that is asked for."""
        found = []
        for intent in self.labels_of(client):
            rows = self._rows[intent]
            found.append(rows[round(start * len(rows)) : round(stop * len(rows))])
        return np.concatenate(found)

    @cached_property
    def _rows(self) -> dict[str, npt.NDArray[np.int64]]:
        """Return the rows of each intent in an order that all clients share."""
        intents = np.array(self._table[1])
        return {
            intent: keyed_generator("named-intents/split", self._seed, intent).permutation(
                np.flatnonzero(intents == intent)
            )
            for intent in sorted(set(self._table[1]))
        }

    @cached_property
    def _groups(self) -> dict[str, list[list[str]]]:
        """Return what clients choose their intents from, by their part."""
        domains: dict[str, list[str]] = {}
        for intent, domain in sorted(self._table[2].items()):
            domains.setdefault(domain, []).append(intent)
        intents = sorted(self._table[2])
        units = [domains[d] for d in sorted(domains)]
        if self._setting == "mixed":
            units = [[intent] for intent in intents]
        order = keyed_generator("named-intents/unseen", self._seed).permutation(len(units))
        new = round(UNSEEN * len(units))
        least = self._ways if self._setting == "mixed" else 1
        planned = new + (max(least, round(PLANNED * len(units))) if self._planning else 0)
        drawn = {
            "new": order[:new],
            "planning": order[new:planned],
            "training": order[planned:],
        }
        parts = {name: [units[index] for index in sorted(rows)] for name, rows in drawn.items()}
        if self._setting == "domain":
            return parts
        return {
            name: [[intent for unit in part for intent in unit]] for name, part in parts.items()
        }

    @cached_property
    def _table(self) -> tuple[npt.NDArray[Any], list[str], dict[str, str]]:
        """Return the texts, the intent of each, and the domain of each intent."""
        requests = read_requests(data_file("named-intents", self._data, FILE))
        texts = np.array([request.text for request in requests], dtype=object)
        domains = {request.intent: request.domain for request in requests}
        return self.inputs.normalize(texts), [r.intent for r in requests], domains
