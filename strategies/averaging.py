"""The source `AveragingSource`: rounds of a method whose server averages something."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from logging import INFO, WARNING
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Message
from flwr.common.logger import log
from safetensors import safe_open
from safetensors.numpy import save

from fedcert.adapters.space import AdapterSpace
from fedcert.atomic import write_atomically
from fedcert.bundles import Bundle
from fedcert.canonical import digest_json
from fedcert.errors import FedcertError
from fedcert.messages import AVERAGE, UPSTREAM, AverageRequest
from fedcert.messages.flower import arrays_of
from fedcert.methods import AveragingMethod, State, Update
from fedcert.methods.federated import drawn_clients
from fedcert.named_arrays import largest_message, prefixed
from fedcert.priors import Prior
from fedcert.strategies.claims import claimed_examples
from fedcert.strategies.correspondence import Request
from fedcert.strategies.phases import Phase
from fedcert.strategies.roster import Roster
from fedcert.strategies.sources import NoPriorError, PriorSource

__all__ = ["AveragingSource"]

# No client moves the mean without bound.
_LARGEST_NORM = 1e3


class AveragingSource(PriorSource):
    """Asks some clients in each round for an update, and publishes what the last one leaves.

    Sampling follows a seed and stable client ids. Each update is checked before it is merged:
    names, shapes, finite numbers, norm, and the weight that its client claims. The state is on
    disk after each round, so that a run that died goes on where it stopped.

    Parameters
    ----------
    method : AveragingMethod
        What clients do, and how the server merges it.
    space : AdapterSpace
        The coordinates, sent to the clients along with their basis.
    publish : callable
        Makes the bundle from the prior and the notes about it.
    seed : int
        Of the draws of clients and of their batches.
    folder : Path
        Where the state is kept.
    min_pool : int (default: 2)
        Fewest upstream clients with which it begins.
    has_bundle : callable
        Whether an earlier run published a bundle, so that rounds that are over belong to it
        (default: none did).
    """

    phase = Phase.FIT
    shown = "average with the clients"

    def __init__(
        self,
        *,
        method: AveragingMethod,
        space: AdapterSpace,
        publish: Callable[[Prior, dict[str, Any]], Bundle],
        seed: int,
        folder: Path,
        min_pool: int = 2,
        has_bundle: Callable[[], bool] = lambda: False,
    ) -> None:
        self.method, self._space, self._publish = method, space, publish
        self._seed, self.min_pool, self._has_bundle = seed, min_pool, has_bundle
        words = {"method": method.to_config(), "space": space.digest, "seed": seed}
        self._kept = _KeptState(folder / f"{digest_json(words)}.safetensors")
        # The next round, how many were merged before it, and the state.
        self._number, self._merged, self._state = self._kept.read() or self._beginning()
        self._updates: dict[str, Update] = {}

    def _beginning(self) -> tuple[int, int, State]:
        return 1, 0, self.method.start(self._space, seed=self._seed)

    def begin(self, roster: Roster) -> None:
        """Begin anew, for a later version, if the rounds that are over made an earlier one."""
        if self._number > self.method.rounds and self._has_bundle():
            self._number, self._merged, self._state = self._beginning()

    def summary(self) -> str:
        """Say what is averaged, and how often."""
        return f"{self.method.title}: {self.method.rounds} rounds, from {self._number} on"

    def rounds(self, roster: Roster, *, failed: Collection[str], fits: bool) -> int:
        """Return how many rounds are left."""
        return max(1, self.method.rounds - self._number + 1) if fits else 0

    def request(self, roster: Roster, *, failed: Collection[str]) -> Request | None:
        """Ask the clients that are drawn for the next round."""
        if self._number > self.method.rounds:
            return None
        there = [client for client in roster.clients(UPSTREAM) if client not in failed]
        most = self.method.federated.clients_per_round
        names = drawn_clients(there, most, self._seed, self._number) if there else []
        payload = AverageRequest(
            space=self._space.to_config(),
            method=self.method.to_config(),
            seed=self._seed,
            round=self._number,
        )
        arrays = prefixed("basis.", self._space.basis)
        arrays |= prefixed("state.", self._state)
        self._updates = {}
        return Request(AVERAGE, names, payload, arrays)

    def take(
        self,
        client: str,
        payload: Mapping[str, Any],
        reply: Message,
        measured: Mapping[str, float],
    ) -> None:
        """Check an update and keep it until the round is merged."""
        expected = self.method.expects(self._space, self._state, self._number)
        most = largest_message(expected.values())
        tensors = arrays_of(reply.content, most=most)
        _check_tensors(tensors, expected)
        self._updates[client] = Update(tensors=tensors, weight=claimed_examples(measured))

    def metrics(self) -> dict[str, int]:
        """Count the updates of a round."""
        return {"answers": len(self._updates)}

    def _merge(self) -> None:
        """Go on to the next round; one that brought nothing leaves the state as it is."""
        number, self._number = self._number, self._number + 1
        if not self._updates:
            log(WARNING, "\tno client could train in round %s", number)
            return
        # In the clients' order, not in that of arrival: a sum's last bits depend on it.
        updates = [self._updates[client] for client in sorted(self._updates)]
        self._state = self.method.merged(self._state, updates, number)
        self._merged, self._updates = self._merged + 1, {}
        self._kept.write(self._number, self._merged, self._state)

    def fit(self) -> Bundle | None:
        """Merge the round, and go on to the next one or to the bundle."""
        if self._number <= self.method.rounds:
            self._merge()
        if self._number <= self.method.rounds:
            return None
        if not self._merged:
            raise NoPriorError("no client could train in any round")
        prior = self.method.published(self._space, self._state)
        notes = {
            "choice": f"{self.method.title}: {self._merged} rounds of averaging",
            "rounds": self._merged,
            "method": self.method.to_config(),
            "pool": 0,
            "memorization": "not audited: nothing is drawn at random from what was averaged",
            "privacy": "no formal privacy: the server saw every client's update",
        }
        log(INFO, "\t%s", notes["choice"])
        return self._publish(prior, notes)


class _KeptState:
    """The server's state between rounds, on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> tuple[int, int, State] | None:
        """Return the next round, how many were merged, and the state, if a run left some."""
        if not self._path.is_file():
            return None
        with safe_open(self._path, framework="numpy") as file:
            said, names = file.metadata() or {}, list(file.keys())
            return (
                int(said["round"]),
                int(said["merged"]),
                {name: np.array(file.get_tensor(name)) for name in names},
            )

    def write(self, number: int, merged: int, state: State) -> None:
        """Keep the state before a round.

        Parameters
        ----------
        number : int
            The round.
        merged : int
            How many rounds before it brought an update.
        state : State
            What they left.
        """
        tensors = {name: np.ascontiguousarray(array) for name, array in state.items()}
        said = {"round": str(number), "merged": str(merged)}
        write_atomically(self._path, save(tensors, metadata=said))


def _check_tensors(tensors: State, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `FedcertError` unless an update can be merged with the others."""
    if {name: array.shape for name, array in tensors.items()} != dict(expected):
        raise FedcertError("its update does not have the names and shapes of what was asked")
    for name, array in tensors.items():
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise FedcertError(f"its update's {name!r} is no array of finite float32 numbers")
    norm = float(
        np.sqrt(sum(float(np.sum(np.square(a, dtype=np.float64))) for a in tensors.values()))
    )
    if norm > _LARGEST_NORM:
        raise FedcertError(f"its norm is {norm:.3g}, above the limit of {_LARGEST_NORM:g}")
