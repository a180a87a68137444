"""Tasks of the kind "which five of these ten are mine?", one per client."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from fedcert.errors import DataError, SettingsError
from fedcert.randomness import keyed_generator

__all__ = ["PersonalSets"]

# Half of ten: 252 sets.
_ALL, _MINE = 10, 5


@dataclass(frozen=True)
class PersonalSets:
    """Who calls which five of ten things its own.

    Attributes
    ----------
    scenario : str
        For messages.
    upstream, new : tuple of str
        Client ids.
    sets : dict
        Indices below ten by client id; no new client has an upstream client's set.
    """

    scenario: str
    upstream: tuple[str, ...]
    new: tuple[str, ...]
    sets: dict[str, tuple[int, ...]]

    @classmethod
    def draw(cls, scenario: str, *, upstream: int, new: int, seed: int) -> PersonalSets:
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

        Returns
        -------
        PersonalSets
            Who has which labels.

        Raises
        ------
        SettingsError
            If there are no upstream clients, or not 1 to 126 new ones: at least half of the
            sets are for upstream clients.
        """
        if not 1 <= new <= 126 or upstream < 1:
            raise SettingsError(f"{scenario}: upstream must be at least 1, and new 1 to 126")
        sets = list(combinations(range(_ALL), _MINE))
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
