"""Scenarios whose clients come with the data: rows with an input, a label and a client."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.data.examples import Examples
from fedcert.errors import DataError, RowError, SettingsError
from fedcert.messages import client_id
from fedcert.randomness import keyed_generator, small_seed
from fedcert.scenarios import Scenario

__all__ = ["NaturalScenario", "Rows", "Split", "text_items"]

_MOST_NEW = 20
# Of clients whose ids are not their names.
_MOST_NAMED = 5


@dataclass(frozen=True)
class Rows:
    """A table of labeled examples.

    Attributes
    ----------
    inputs : numpy.ndarray
        Raw inputs, as `InputSpec.normalize` takes them.
    labels : numpy.ndarray
        Class indices.
    clients : numpy.ndarray
        Whose example it is: objects of ``str``.
    items : numpy.ndarray
        What it is an example of: objects of ``str``. Rows of one item stay on one side.
    repeats : bool
        Whether rows of a client that are of one item are observations of their own, which all
        count; of new clients each is for support or test by itself.
    where : callable
        Says where a row stands in the data, for messages.
    """

    inputs: npt.NDArray[Any]
    labels: npt.NDArray[np.int64]
    clients: npt.NDArray[Any]
    items: npt.NDArray[Any]
    repeats: bool = False
    where: Callable[[int], str] = lambda row: f"row {row + 1}"


@dataclass(frozen=True)
class Split:
    """How rows are split into upstream training, and support and test of new clients.

    Parameters
    ----------
    upstream : int
        Most upstream clients; 0 for all.
    new : int
        Most new clients, drawn by `seed` unless the scenario names them; 0 for all that it
        names, or a fifth of the clients, at least one and at most 20.
    smallest : int
        Clients with fewer rows take no part.
    smallest_new : int
        New clients have at least so many.
    training_size : int
        Most rows that an upstream client trains on; 0 for all.
    new_size : int
        Most rows of a new client, for support and test together; 0 for all.
    support_share : float
        Share of the new clients' items that are for support.
    seed : int
        Of all draws.
    reference : int
        Items that are kept for the reference sample, a row of each, drawn from all rows but
        those that `_is_new` gives to new clients; nobody trains or is certified on them
        (default: 0).
    """

    upstream: int = 0
    new: int = 0
    smallest: int = 100
    smallest_new: int = 160
    training_size: int = 0
    new_size: int = 400
    support_share: float = 0.5
    seed: int = 0
    reference: int = 0

    def __post_init__(self) -> None:
        sizes = (self.upstream, self.new, self.training_size, self.new_size, self.reference)
        if min(sizes) < 0 or self.smallest < 4:
            raise SettingsError(
                "the scenario's options upstream, new, training_size, new_size and reference "
                "must not be negative, and smallest be at least 4"
            )
        if not 0 < self.support_share < 1:
            raise SettingsError("the scenario's option support_share must lie between 0 and 1")


class NaturalScenario(Scenario):
    """Splits rows into upstream training, and support and test of new clients.

    Items are the unit. An item that a new client has is on the new clients' side, and no
    upstream client trains on it; there, a keyed digest puts it either into all support sets
    or into all test sets. A client has an item once, unless repeated rows are observations.

    Parameters
    ----------
    split : Split
        Of rows and clients.
    """

    _of_repeats = ""  # what a scenario adds where rows that repeat an item are left out

    def __init__(self, split: Split) -> None:
        self._split = split
        self._left_out: list[str] = []

    @cached_property
    @abstractmethod
    def _rows(self) -> Rows:
        """Read all rows."""

    def _is_new(self, client: str) -> bool | None:
        """Say whether a client is a new one; None lets the seed decide."""
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """What rows and clients are left out, and why."""
        _ = self._parts
        return tuple(f"{self.name}: {note}" for note in [*self._left_out, *self._renamed()])

    def _renamed(self) -> Iterator[str]:
        """Say by which ids clients are known whose names cannot be names of files."""
        taking_part = {*self.upstream_clients, *self.new_clients}
        renamed = {
            name: known
            for name in dict.fromkeys(self._rows.clients.tolist())
            if (known := client_id(name)) != name and known in taking_part
        }
        if renamed:
            first = [f"{name!r} is {known}" for name, known in renamed.items()]
            more = f", and {len(first) - _MOST_NAMED} more" * (len(first) > _MOST_NAMED)
            listed = f"{', '.join(first[:_MOST_NAMED])}{more}"
            yield (
                f"{len(renamed)} clients have names that cannot be names of files, and are "
                f"known by the first 16 digits of their SHA-256: {listed}"
            )

    @property
    def upstream_clients(self) -> tuple[str, ...]:
        """Ids of the clients that train."""
        return tuple(self._parts[0])

    @property
    def new_clients(self) -> tuple[str, ...]:
        """Ids of the clients that personalize."""
        return tuple(self._parts[1])

    def training_examples(self, client: str) -> Examples:
        """Return a draw from the client's rows whose items no new client has."""
        return self._examples(self._part(0, client))

    def support_examples(self, client: str, size: int) -> Examples:
        """Return the first `size` rows of the client's own order of its support side."""
        rows = self._part(1, client)
        rows = rows[self._for_support[rows]]
        if not 1 <= size <= len(rows):
            raise DataError(
                f"{self.name} can give 1 to {len(rows)} support examples of {client}, not "
                f"{size}; lower certificate.support_size, or raise the option `smallest_new`"
            )
        return self._examples(rows[:size])

    def test_examples(self, client: str) -> Examples | None:
        """Return the client's rows on the test side."""
        rows = self._part(1, client)
        rows = rows[~self._for_support[rows]]
        return self._examples(rows) if len(rows) else None

    def reference_examples(self) -> Examples | None:
        """Return the reference sample, if the option `reference` asks for one."""
        return self._examples(self._reserved) if self._split.reference else None

    @cached_property
    def _reserved(self) -> npt.NDArray[np.int64]:
        """Draw the rows of the reference sample, one for each of its items."""
        size, rows = self._split.reference, self._rows
        if not size:
            return np.zeros(0, dtype=np.int64)
        generator = keyed_generator(self.name, "reference", self._split.seed)
        found: dict[str, int] = {}
        for row in generator.permutation(len(rows.labels)):
            if self._is_new(rows.clients[row]) is not True:
                found.setdefault(rows.items[row], int(row))
            if len(found) == size:
                return np.array(list(found.values()), dtype=np.int64)
        raise SettingsError(
            f"{self.name}: there are {len(found)} items for a reference sample, not {size}; "
            "lower the option `reference`"
        )

    def _examples(self, rows: npt.NDArray[np.int64]) -> Examples:
        table = self._rows
        try:
            return self.inputs.examples(table.inputs[rows], table.labels[rows])
        except RowError as error:
            where = table.where(int(rows[error.row]))
            raise DataError(f"{self.name}: {where} {error.reason}") from error

    def _part(self, side: int, client: str) -> npt.NDArray[np.int64]:
        if client not in self._parts[side]:
            raise DataError(f"{self.name} has no client {client!r} on this side")
        return self._parts[side][client]

    @cached_property
    def _for_support(self) -> npt.NDArray[np.bool_]:
        """Say of each row whether it is for support, should a new client have it.

        Rows of an item share its side; where repeats count, further ones have their own.
        """
        limit = self._split.support_share * 2.0**63

        def drawn(*key: str | int) -> bool:
            return small_seed(self.name, "support", self._split.seed, *key) < limit

        sides = {item: drawn(item) for item in set(self._rows.items)}
        found = np.array([sides[item] for item in self._rows.items])
        if self._rows.repeats:
            # All copies on one side would be no sample of what the client meets.
            seen: Counter[tuple[str, str]] = Counter()
            for row, key in enumerate(zip(self._rows.clients, self._rows.items, strict=True)):
                if seen[key]:
                    found[row] = drawn(*key, seen[key])
                seen[key] += 1
        return found

    @cached_property
    def _parts(self) -> tuple[dict[str, npt.NDArray[np.int64]], ...]:
        """Return the rows of each upstream and of each new client, in their own order."""
        self._left_out = []
        shuffled = self._by_client()
        large = [
            name for name, rows in shuffled.items() if len(rows) >= self._split.smallest_new
        ]
        names = self._new_names(large)
        new = {name: shuffled[name][: self._split.new_size or None] for name in names}
        table = self._rows
        taken = {item for rows in new.values() for item in table.items[rows]}
        upstream: dict[str, npt.NDArray[np.int64]] = {}
        crowded_out = of_one_label = 0
        for name, rows in shuffled.items():
            if name in names or self._is_new(name) or self._enough(upstream):
                continue
            free = np.array([item not in taken for item in table.items[rows]])
            kept = rows[free]
            if len(kept) < self._split.smallest:
                crowded_out += 1
            elif len(np.unique(table.labels[kept])) < 2:
                of_one_label += 1
            else:
                upstream[client_id(name)] = kept[: self._split.training_size or None]
        self._note(
            crowded_out,
            f"clients do not train: without the items that new clients have, fewer than "
            f"{self._split.smallest} rows (`smallest`) are left to each",
        )
        self._note(of_one_label, "clients do not train: all their rows have the same label")
        if not upstream or not names:
            raise DataError(
                f"{self.name}: {len(shuffled)} clients have {self._split.smallest} rows or "
                f"more, {len(large)} of them {self._split.smallest_new}; that leaves "
                f"{len(upstream)} upstream and {len(names)} new ones; lower the options "
                "`smallest`, `smallest_new`, or `new` (as in --set scenario.options.new=2)"
                + "".join(f"; {note}" for note in self._left_out)
            )
        return upstream, {client_id(name): rows for name, rows in new.items()}

    def _enough(self, upstream: dict[str, npt.NDArray[np.int64]]) -> bool:
        return bool(self._split.upstream) and len(upstream) >= self._split.upstream

    def _by_client(self) -> dict[str, npt.NDArray[np.int64]]:
        """Return each large client's rows; clients and rows are shuffled."""
        found: dict[str, dict[tuple[str, int], int]] = {}
        labels, repeated, conflicting = self._rows.labels, 0, 0
        reserved = set(self._rows.items[self._reserved])
        for row, (client, item) in enumerate(
            zip(self._rows.clients, self._rows.items, strict=True)
        ):
            if item in reserved:
                continue
            key = (item, row if self._rows.repeats else 0)
            first = found.setdefault(client, {}).setdefault(key, row)
            repeated += first != row
            conflicting += labels[first] != labels[row]
        self._note(
            repeated,
            f"of {len(labels)} rows repeat an item of the same client and are left out; the "
            f"first one counts, also for the {conflicting} that have another label than it"
            + self._of_repeats,
        )
        small = sum(len(rows) < self._split.smallest for rows in found.values())
        self._note(
            small,
            f"of {len(found)} clients take no part: they have fewer than "
            f"{self._split.smallest} rows (`smallest`)",
        )
        names = sorted(
            name for name, rows in found.items() if len(rows) >= self._split.smallest
        )
        order = keyed_generator(self.name, "clients", self._split.seed).permutation(len(names))
        shuffled = {}
        for name in (names[index] for index in order):
            rows = np.array(list(found[name].values()), dtype=np.int64)
            generator = keyed_generator(self.name, "rows", self._split.seed, name)
            shuffled[name] = generator.permutation(rows)
        return shuffled

    def _note(self, count: int, what: str) -> None:
        if count:
            self._left_out.append(f"{count} {what}")

    def _new_names(self, names: list[str]) -> list[str]:
        named = [name for name in names if self._is_new(name)]
        if named or any(self._is_new(name) is False for name in names):
            return named[: self._split.new or None]
        fifth = max(1, min(_MOST_NEW, len(names) // 5))
        return names[: self._split.new or fifth]


def text_items(texts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return what makes two texts the same example: white space and case aside."""
    items = np.empty(len(texts), dtype=object)
    items[:] = [" ".join(str(text).split()).casefold() for text in texts]
    return items
