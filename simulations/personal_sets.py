"""Tasks of the kind "which half of these ten are mine?", one per client."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import numpy.typing as npt

from fedcert.data.examples import Examples
from fedcert.errors import DataError, SettingsError
from fedcert.randomness import keyed_generator
from fedcert.scenarios import Scenario

__all__ = ["PersonalScenario", "PersonalSets"]

# Ten things have 252 halves; those of more things are drawn one by one.
_ALL = 10
# Of the training split, for clients that plan.
_APART = 0.25


@dataclass(frozen=True)
class PersonalSets:
    """Who calls which half of some things its own.

    Attributes
    ----------
    scenario : str
        For messages.
    upstream, new : tuple of str
        Client ids.
    sets : dict
        Indices of the things by client id; no new client has an upstream client's set.
    """

    scenario: str
    upstream: tuple[str, ...]
    new: tuple[str, ...]
    sets: dict[str, tuple[int, ...]]

    @classmethod
    def draw(
        cls, scenario: str, *, upstream: int, new: int, seed: int, things: int = _ALL
    ) -> PersonalSets:
        """Draw the sets; an upstream client has one of its own while the seen ones last.

        Parameters
        ----------
        scenario : str
            Name of the scenario.
        upstream : int
            Number of upstream clients.
        new : int
            Number of new clients.
        seed : int
            Draws the sets.
        things : int (default: 10)
            How many things there are, an even number.

        Returns
        -------
        PersonalSets
            Who has which labels.

        Raises
        ------
        SettingsError
            If there are no upstream clients, or not 1 to 126 new ones: at least half of the
            sets of ten are for upstream clients.
        """
        if not 1 <= new <= 126 or upstream < 1:
            raise SettingsError(f"{scenario}: upstream must be at least 1, and new 1 to 126")
        if things > _ALL:
            sets = _drawn(scenario, things, upstream + new, seed=seed)
            order = np.arange(len(sets))
        else:
            sets = list(combinations(range(things), things // 2))
            order = keyed_generator(f"{scenario}/sets", seed).permutation(len(sets))
        unseen, seen = order[:new], order[new:]
        ids = [f"{scenario}-{index:04d}" for index in range(upstream + new)]
        tasks = [sets[seen[i % len(seen)]] for i in range(upstream)] + [sets[i] for i in unseen]
        return cls(
            scenario,
            tuple(ids[:upstream]),
            tuple(ids[upstream:]),
            dict(zip(ids, tasks, strict=True)),
        )

    def of(self, client: str) -> tuple[int, ...]:
        """Return a client's set."""
        if client not in self.sets:
            raise DataError(f"{self.scenario} has no client {client!r}")
        return self.sets[client]


def _drawn(scenario: str, things: int, count: int, *, seed: int) -> list[tuple[int, ...]]:
    """Draw different halves of so many things that nobody could list all of them."""
    generator = keyed_generator(f"{scenario}/sets", things, seed)
    found: dict[tuple[int, ...], None] = {}
    while len(found) < count:
        half = generator.choice(things, things // 2, replace=False)
        found[tuple(sorted(half.tolist()))] = None
    return list(found)


class PersonalScenario(Scenario):
    """Splits one table, which all clients share; each labels it by its own set.

    Parameters
    ----------
    sets : PersonalSets
        Who calls what its own.
    training_size : int
        Examples that an upstream client trains on, drawn from the training split.
    seed : int
        Draws each client's examples.
    planners : int (default: 0)
        The last so many upstream clients are those to plan first, if anybody plans; as many
        should (``planning.most``), or the others of them train. They share a quarter of the
        training split, from which no other client draws: what trained on their examples would
        look better to them than to a new client.

    Raises
    ------
    SettingsError
        If all upstream clients would plan.
    """

    def __init__(
        self, sets: PersonalSets, *, training_size: int, seed: int, planners: int = 0
    ) -> None:
        if not 0 <= planners < len(sets.upstream):
            raise SettingsError(
                f"{sets.scenario}: of {len(sets.upstream)} upstream clients {planners} cannot "
                "be planners; some have to train"
            )
        self._sets, self._training_size, self._seed = sets, training_size, seed
        self._planners = planners

    @property
    def upstream_clients(self) -> tuple[str, ...]:
        """Ids of the clients that train."""
        return self._sets.upstream

    @property
    def new_clients(self) -> tuple[str, ...]:
        """Ids of the clients that personalize."""
        return self._sets.new

    @property
    def planning_clients(self) -> tuple[str, ...]:
        """Those whose examples nobody trains on; none unless `planners` says so."""
        return self.upstream_clients[len(self.upstream_clients) - self._planners :]

    def training_examples(self, client: str) -> Examples:
        """Return an upstream client's own draw from the training split."""
        pool = self._splits["training"]
        if self._planners:
            apart = round(_APART * len(pool))
            pool = pool[:apart] if client in self.planning_clients else pool[apart:]
        generator = keyed_generator(f"{self.name}/training", self._seed, client)
        size = min(self._training_size, len(pool))
        return self._labeled(client, generator.choice(pool, size, replace=False))

    def support_examples(self, client: str, size: int) -> Examples:
        """Return the first `size` of the client's own order of the support split."""
        pool = self._splits["support"]
        if not 1 <= size <= len(pool):
            raise DataError(
                f"{self.name} can give 1 to {len(pool)} support examples, not {size}"
            )
        generator = keyed_generator(f"{self.name}/support", self._seed, client)
        return self._labeled(client, generator.permutation(pool)[:size])

    @cached_property
    @abstractmethod
    def _splits(self) -> dict[str, npt.NDArray[np.int64]]:
        """Return the table's rows in the training, support and test split."""

    @abstractmethod
    def _labeled(self, client: str, rows: npt.NDArray[np.int64]) -> Examples:
        """Return rows of the table with a client's labels."""
