"""Central differential privacy over rounds: the server publishes a noised mean in each of them.

Nothing is gained here from drawing clients at random. Amplification by subsampling takes draws
that nobody can foresee, and with most theorems an independent draw of each client; rounds here
take a fixed number, by the run's public seed. What counts instead is how often one client is
asked: clients are dealt out in turn, so that no client is asked more often than it must be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.errors import SettingsError
from fedcert.privacy.gaussian import composed, epsilon_of
from fedcert.privacy.mechanism import GaussianPrivacy
from fedcert.randomness import keyed_generator

__all__ = ["RoundsPrivacy", "dealt_clients"]

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class RoundsPrivacy(GaussianPrivacy):
    """The promise of all rounds together: replacing any one client hardly shows.

    Parameters
    ----------
    clip : float
        C, the largest norm of what a client sends in a round.
    epsilon, delta : float
        The promise for all rounds that one client is asked in.
    clients : int
        N, how many are asked in a round.
    rounds : int
        K, the most rounds that one client is asked in.

    Raises
    ------
    SettingsError
        If one of them is out of range.
    """

    clients: int
    rounds: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.clients, self.rounds) < 1:
            raise SettingsError("private rounds need a client, and a round, at least")

    @property
    def noise_deviation(self) -> float:
        """Standard deviation of the noise on each coordinate of a round's mean.

        Replacing one client moves the means that it is in by at most 2 C / N each, and mu^2
        adds up over K of them.
        """
        return 2 * self.clip / self.clients * math.sqrt(self.rounds) / self.mu

    def release(
        self,
        sent: Iterable[Arrays],
        shapes: Mapping[str, tuple[int, ...]],
        *,
        generator: np.random.Generator,
    ) -> dict[str, npt.NDArray[np.float64]]:
        """Shorten what clients sent, average it, and add noise.

        Who was asked and sent nothing counts as if it had sent zeros. A mean over those alone
        who answered would move by more than the noise hides when one of them does not.

        Parameters
        ----------
        sent : iterable of Mapping
            Finite arrays by name, of each client that answered.
        shapes : Mapping
            The shape of each array.
        generator : numpy.random.Generator
            Draws the noise; secret, as in `UploadPrivacy.release`.

        Returns
        -------
        dict
            The noised mean, rounded to float32 for the same reason as there.

        Raises
        ------
        SettingsError
            If more clients answered than the noise is for.
        """
        # Sums begin with the noise: one array a module, and nothing without it.
        mean = {
            name: self.noise_deviation * generator.standard_normal(shape)
            for name, shape in shapes.items()
        }
        for count, arrays in enumerate(sent, start=1):
            if count > self.clients:
                raise SettingsError(f"the noise is for {self.clients} clients and no more")
            share = self._shortening(arrays) / self.clients
            for name, array in arrays.items():
                mean[name] += share * array
        return {
            name: array.astype(np.float32).astype(np.float64) for name, array in mean.items()
        }

    def _shortening(self, arrays: Arrays) -> float:
        squares = [np.square(array, dtype=np.float64).sum() for array in arrays.values()]
        norm = float(np.sqrt(np.sum(squares)))
        return 1.0 if norm <= self.clip else self.clip / norm

    def notes(self, *, before: Sequence[float] = ()) -> dict[str, Any]:
        """Return what is published about it: a JSON object.

        Parameters
        ----------
        before : sequence of float
            mu of what was published about the same clients in this way before.

        Returns
        -------
        dict
            The promise of all of it together, in numbers and in words.
        """
        mu = composed(*before, self.mu)
        together = epsilon_of(mu, self.delta)
        return {
            "mechanism": "Gaussian noise on each round's mean of clipped updates, added by the "
            "server",
            "epsilon": float(f"{together:.6g}"),
            "delta_p": self.delta,
            "mu": mu,
            "clip": self.clip,
            "noise_deviation": float(f"{self.noise_deviation:.6g}"),
            "clients_of_a_round": self.clients,
            "rounds_of_a_client": self.rounds,
            "amplification": "none: it is public whom a round asks",
            "unit": "replacing all examples of one client that trained the base model",
            "words": (
                "Whoever sees the base model, and what it was after each round, learns next to "
                "nothing about any one client whose examples trained it: whatever they were, "
                f"no outcome is more than e^{together:.3g} times as probable, but for a "
                f"probability of {self.delta:g}. The server itself saw what each client sent."
            ),
        }


def dealt_clients(names: Sequence[str], count: int, number: int, *, seed: int) -> list[str]:
    """Return the clients of a round, dealt out in turn in an order that stays.

    In R rounds of N out of T clients nobody is asked more often than R N / T times, rounded up.

    Parameters
    ----------
    names : sequence of str
        All clients; the same ones in every round.
    count : int
        Clients of a round; 0 takes all.
    number : int
        The round, from 1 on.
    seed : int
        Fixes the order.

    Returns
    -------
    list of str
        The round's clients, in the order of their names.

    Examples
    --------
    >>> rounds = [dealt_clients("abcd", 2, number, seed=0) for number in (1, 2, 3)]
    >>> sorted(rounds[0] + rounds[1]), rounds[2] == rounds[0]
    (['a', 'b', 'c', 'd'], True)
    """
    order = keyed_generator("dealt clients", seed).permutation(len(names))
    ordered = [sorted(names)[index] for index in order]
    if not count or count >= len(ordered):
        return sorted(ordered)
    first = (number - 1) * count
    return sorted(ordered[place % len(ordered)] for place in range(first, first + count))
