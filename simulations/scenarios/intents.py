"""Scenario `intents`: everyone has their own idea of which requests are "mine".

The data are the 22,500 requests to an assistant of CLINC150 (Larson et al., EMNLP 2019), of
10 domains; requests outside all domains are left out. Each client has a private set of 5
domains that it labels "mine" (252 possible tasks). Upstream clients hold some of the sets;
every new client has a set that no upstream client has. The option `domains` splits the domains
into more groups of intents, and so makes tasks with more independent parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fedcert.data.examples import Examples
from fedcert.errors import DataError, SettingsError
from fedcert.randomness import keyed_generator
from fedcert.simulations.clinc import FILE, read_requests
from fedcert.simulations.personal_sets import PersonalScenario, PersonalSets
from fedcert.simulations.sources import BaseOptions, OnTextBase, TextBase, data_file

__all__ = ["Intents"]

# Shares of the distinct texts for upstream training and for support; the rest is for tests.
TRAINING, SUPPORT = 0.6, 0.2
_DOMAINS = (10, 20, 30)


class Intents(OnTextBase, PersonalScenario):
    """Requests to an assistant, on a pretrained text encoder.

    Parameters
    ----------
    upstream : int (default: 128)
        Upstream clients; each has a set of its own while the seen sets last.
    new : int (default: 60)
        New clients; their sets are unseen upstream.
    training_size : int (default: 200)
        Texts that an upstream client trains on, drawn from the training split.
    test_size : int (default: 400)
        Texts that measure true errors, the same for all new clients.
    data : str (default: "")
        Folder of ``clinc150.csv.gz``; by default ``$FEDCERT_DATA``.
    base : str (default: "")
        Folder or hub id of a pretrained text model; by default MiniLM.
    seed : int (default: 0)
        Draws the split, the sets, and each client's examples.
    domains : int (default: 10)
        10, 20, or 30: into how many groups the 150 intents are split; a client's set is half
        of them.
    texts : int (default: 0)
        Use so many of the texts, drawn by the seed; 0 for all.
    planners : int (default: 0)
        The last so many upstream clients are those to plan first, if anybody plans. They share
        a quarter of the texts for training, from which no other client draws.
    """

    name = "intents"
    description = "Which 5 of the 10 domains of requests are mine? (CLINC150)"
    labels = ("other", "mine")
    defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "training": {"learning_rate": 0.1, "weight_decay": 0.01}
    }

    def __init__(
        self,
        *,
        upstream: int = 128,
        new: int = 60,
        training_size: int = 200,
        test_size: int = 400,
        data: str = "",
        base: str = "",
        seed: int = 0,
        domains: int = 10,
        texts: int = 0,
        planners: int = 0,
    ) -> None:
        if texts < 0:
            raise SettingsError("intents: texts must not be negative")
        if domains not in _DOMAINS:
            raise SettingsError(
                f"intents: domains must be {', '.join(map(str, _DOMAINS))}, not {domains!r}"
            )
        sets = PersonalSets.draw(
            "intents", upstream=upstream, new=new, seed=seed, things=domains
        )
        self._parts = domains // _DOMAINS[0]
        if training_size < 2 or test_size < 1:
            raise SettingsError(
                "intents: training_size must be at least 2, and test_size at least 1"
            )
        super().__init__(sets, training_size=training_size, seed=seed, planners=planners)
        self._test_size, self._data, self._texts = test_size, data, texts
        self._base = TextBase("intents", BaseOptions(base, max_length=64), self.labels)

    def mine(self, client: str) -> tuple[str, ...]:
        """Return the domains, or parts of domains, that a client calls its own."""
        return tuple(self._table[2][domain] for domain in self._sets.of(client))

    def test_examples(self, client: str) -> Examples:
        """Return the first texts of the test split under the client's labels."""
        rows = self._splits["test"][: self._test_size]
        return Examples(self._test_texts, self._own(client, rows))

    def _labeled(self, client: str, rows: npt.NDArray[np.int64]) -> Examples:
        return Examples(self._table[0][rows], self._own(client, rows))

    def _own(self, client: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        domains, names = self._table[1:]
        mine = [names.index(name) for name in self.mine(client)]
        return np.isin(domains[rows], mine).astype(np.int64)

    @cached_property
    def _test_texts(self) -> npt.NDArray[Any]:
        """One array for all clients: scorers keep what they computed for an array."""
        rows = self._splits["test"][: self._test_size]
        texts: npt.NDArray[Any] = self._table[0][rows]
        return texts

    @cached_property
    def _table(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], list[str]]:
        """Return distinct texts, the (part of a) domain of each, and the names of these."""
        path = data_file("intents", self._data, FILE)
        requests = read_requests(path)
        count = len({request.domain for request in requests})
        if count != _DOMAINS[0]:
            raise DataError(f"{path}: holds {count} domains instead of {_DOMAINS[0]}")
        part_of = _parts_of({(r.domain, r.intent) for r in requests}, self._parts)
        names = sorted({*part_of.values()})
        texts = np.array([request.text for request in requests], dtype=object)
        domains = np.array([names.index(part_of[r.domain, r.intent]) for r in requests])
        return self.inputs.normalize(texts), domains.astype(np.int64), names

    @cached_property
    def _splits(self) -> dict[str, npt.NDArray[np.int64]]:
        count = len(self._table[1])
        order = keyed_generator("intents/split", self._seed).permutation(count)
        count = min(count, self._texts or count)
        ends = [round(TRAINING * count), round((TRAINING + SUPPORT) * count)]
        return dict(
            zip(("training", "support", "test"), np.split(order[:count], ends), strict=True)
        )


def _parts_of(intents: Iterable[tuple[str, str]], parts: int) -> dict[tuple[str, str], str]:
    """Return of each domain and intent which part of the domain it is in, in order of names."""
    by_domain: dict[str, list[str]] = {}
    for domain, intent in sorted(intents):
        by_domain.setdefault(domain, []).append(intent)
    return {
        (domain, intent): domain
        if parts == 1
        else f"{domain} {place * parts // len(members) + 1}"
        for domain, members in by_domain.items()
        for place, intent in enumerate(members)
    }
