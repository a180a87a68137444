"""The rounds of a warm start at the server: whom they ask, and what comes of the answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Message

from fedcert.errors import FedcertError, RunError
from fedcert.messages.flower import arrays_of
from fedcert.methods.federated import drawn_clients
from fedcert.named_arrays import largest_message
from fedcert.settings.sections import WarmStartSettings
from fedcert.strategies.claims import claimed_examples
from fedcert.warm_start import Trunk, TrunkTensors
from fedcert.warm_start.outer import RoundMean, norm_of, round_weights, shortened, tail_weights
from fedcert.warm_start.progress import WarmProgress

__all__ = ["Answer", "Figures", "Moves", "TrunkRounds"]

Moves = dict[str, npt.NDArray[np.float64]]
"""How far a round moves every B, before the server's optimizer."""
Figures = dict[str, int | float]
"""What is kept, and told, about a round."""

# Of the ascent where the tail counts: a client at one nat doubles its weight in two rounds.
_TAIL_RATE = 0.5


@dataclass
class Answer:
    """A client's good answer in a round, still packed."""

    reply: Message
    examples: int
    loss: float
    norm: float

    @classmethod
    def checked(cls, reply: Message, said: Mapping[str, float], trunk: Trunk) -> Answer:
        """Check a reply.

        Parameters
        ----------
        reply : Message
            The client's.
        said : Mapping[str, float]
            The numbers in its metrics.
        trunk : Trunk
            What it should have moved.

        Returns
        -------
        Answer
            The same, still packed.

        Raises
        ------
        FedcertError
            If it is no answer that could be averaged.
        """
        examples, loss = claimed_examples(said), said.get("loss", float("nan"))
        if not loss >= 0:
            raise FedcertError("its metrics must hold a loss of 0 or more")
        answer = cls(reply, examples, loss, 0.0)
        answer.norm = norm_of(answer.delta(trunk))
        return answer

    def delta(self, trunk: Trunk) -> TrunkTensors:
        """Unpack how far the client moved the trunk."""
        most = largest_message(trunk.shapes().values(), item=4)
        return trunk.checked(arrays_of(self.reply.content, most=most))


class TrunkRounds:
    """Rounds without noise: clients are drawn, and count by examples or by their tail.

    Parameters
    ----------
    settings : WarmStartSettings
        Clients of a round, and their weights.
    progress : WarmProgress
        What the rounds so far have left; who trained, and weights, are noted in it.
    trunk : Trunk
        What is trained.
    seed : int
        Draws the clients.
    folder : Path
        Of the warm start.
    """

    def __init__(
        self,
        settings: WarmStartSettings,
        progress: WarmProgress,
        trunk: Trunk,
        seed: int,
        folder: Path,
    ) -> None:
        self._settings, self._progress = settings, progress
        self._trunk, self._seed, self._folder = trunk, seed, folder

    def choose(self, trainers: Sequence[str]) -> None:
        """Fix what must not change from the first round on, before anybody trains."""

    def begin(self) -> None:
        """Check that rounds may be published, before the first of those that are left.

        Raises
        ------
        RunError
            If that would break what an earlier warm start of the folder promises.
        """
        if self._account.exists():
            raise RunError(
                f"{self._account} says that the warm starts of this folder promise privacy, "
                "which rounds without noise would break; set warm_start.epsilon again, or take "
                "a new run folder and other clients"
            )

    def publish(self) -> None:
        """Note that the trunk of the rounds so far is about to be seen by others."""

    @property
    def _account(self) -> Path:
        """What the private warm starts of the folder have published."""
        return self._folder / "releases.json"

    def drawn(self, trainers: Sequence[str], present: Collection[str]) -> list[str]:
        """Return the clients of the next round.

        Parameters
        ----------
        trainers : sequence of str
            Those who could train, and have not failed.
        present : collection of str
            Whoever is there.
        """
        number = len(self._progress.rounds) + 1
        count = self._settings.clients_per_round
        return drawn_clients(trainers, count, self._seed, number)

    def mean(
        self, answers: Mapping[str, Answer], trainers: Sequence[str]
    ) -> tuple[Moves, Figures]:
        """Average a round.

        Parameters
        ----------
        answers : Mapping[str, Answer]
            The good ones by client.
        trainers : sequence of str
            As in `drawn`.

        Returns
        -------
        tuple
            The mean, and what the round was like.
        """
        names = sorted(answers)
        median = float(np.median([answers[name].norm for name in names]))
        mean = RoundMean(self._trunk)
        for name, weight in zip(names, self._weights(answers, trainers), strict=True):
            delta = answers[name].delta(self._trunk)
            mean.add(shortened(delta, answers[name].norm, median), weight)
        self._progress.clients = sorted({*self._progress.clients, *names})
        loss = float(np.mean([answers[name].loss for name in names]))
        return mean.total, {"clients": len(names), "loss": loss, "norm": median}

    def promise(self) -> dict[str, Any] | None:
        """Return what is promised about clients; None: nothing."""
        return None

    def _weights(
        self, answers: Mapping[str, Answer], trainers: Sequence[str]
    ) -> Sequence[float]:
        names = sorted(answers)
        if self._settings.weights == "equal":
            return [1 / len(names)] * len(names)
        examples = [answers[name].examples for name in names]
        if self._settings.weights == "examples":
            return [*map(float, round_weights(examples))]
        weights = self._tail(sorted({*trainers, *names}))
        drawn = round_weights(examples, [weights[name] for name in names])
        losses = {name: answers[name].loss for name in names}
        self._progress.weights = tail_weights(weights, losses, rate=_TAIL_RATE)
        return [*map(float, drawn)]

    def _tail(self, names: Sequence[str]) -> dict[str, float]:
        """Return every client's weight; who is new has that of a mean one."""
        known = {name: self._progress.weights.get(name, 1 / len(names)) for name in names}
        total = sum(known.values())
        return {name: weight / total for name, weight in known.items()}
