"""Tasks of the kind "which half of these ten are mine?", one per client."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from fedcert.errors import DataError, SettingsError
from fedcert.randomness import keyed_generator

__all__ = ["PersonalSets"]

# Ten things have 252 halves; those of more things are drawn one by one.
_ALL = 10


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
