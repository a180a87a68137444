"""The server's part of what a private warm start promises: whom it asks, noise, accounts.

Flower's wrapper `DifferentialPrivacyServerSideFixedClipping` does not serve here. It takes its
noise from NumPy's global generator, divides by those who answered where the noise is for those
who were asked, accounts each round to every client, and keeps its account in memory alone,
where a run that died loses it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from fedcert.errors import RefusalError, RunError
from fedcert.privacy import (
    GaussianPrivacy,
    ReleaseLedger,
    RoundsPrivacy,
    dealt_clients,
    epsilon_of,
)
from fedcert.privacy.gaussian import composed
from fedcert.privacy.ledger import Release
from fedcert.randomness import fresh_seed
from fedcert.settings import RunSettings
from fedcert.settings.sections import WarmStartSettings
from fedcert.strategies.noise import server_noise
from fedcert.strategies.trunk_rounds import Answer, Figures, Moves, TrunkRounds
from fedcert.warm_start import PROVENANCE, Trunk
from fedcert.warm_start.progress import WarmProgress

__all__ = ["PrivateRounds", "TrunkPrivacy"]


@dataclass(frozen=True)
class TrunkPrivacy:
    """What a warm start promises about clients, and the means to keep it.

    Attributes
    ----------
    promise : GaussianPrivacy
        Of all rounds together.
    budget : float
        Largest epsilon of all warm starts that were begun in one folder.
    noise : callable
        Takes the number of a round, and returns what draws its noise.
    """

    promise: GaussianPrivacy
    budget: float
    noise: Callable[[int], np.random.Generator]

    @classmethod
    def of(cls, settings: RunSettings) -> Self | None:
        """Return what a run's settings ask for; None without `warm_start.epsilon`."""
        warm, privacy = settings.warm_start, settings.privacy
        if not warm.epsilon:
            return None
        return cls(
            GaussianPrivacy(warm.clip, warm.epsilon, privacy.delta),
            privacy.budget or warm.epsilon,
            lambda number: server_noise(settings, "trunk", number),
        )

    def over(self, trainers: int, *, count: int, rounds: int) -> RoundsPrivacy:
        """Return the promise with the noise that it takes.

        Parameters
        ----------
        trainers : int
            Clients among whom rounds are dealt out.
        count : int
            Clients of a round; 0 takes all.
        rounds : int
            How many there are.

        Returns
        -------
        RoundsPrivacy
            What each round is averaged with.
        """
        asked = min(count or trainers, trainers)
        most = math.ceil(rounds * asked / trainers)
        promise = self.promise
        return RoundsPrivacy(promise.clip, promise.epsilon, promise.delta, asked, most)


class PrivateRounds(TrunkRounds):
    """Rounds with noise: clients are dealt out, count alike, and nothing else is told of them.

    Parameters
    ----------
    settings, progress, trunk, seed, folder
        As in `TrunkRounds`. The account in the folder outlives the progress.
    privacy : TrunkPrivacy
        What is promised.
    """

    def __init__(
        self,
        settings: WarmStartSettings,
        progress: WarmProgress,
        trunk: Trunk,
        seed: int,
        folder: Path,
        *,
        privacy: TrunkPrivacy,
    ) -> None:
        super().__init__(settings, progress, trunk, seed, folder)
        self._privacy = privacy
        self._asked: list[str] = []

    def choose(self, trainers: Sequence[str]) -> None:
        """Fix among whom rounds are dealt out, and give the warm start a name to account by."""
        if not self._progress.release and trainers:
            self._progress.trainers, self._progress.release = [*trainers], fresh_seed()

    def begin(self) -> None:
        """Note the warm start in the folder's account, once.

        A round whose mean was not written down was not sent to anybody either, so going on
        costs nothing. Beginning anew does: the same clients are in what was published before.

        Raises
        ------
        RunError
            If the budget does not allow another one, an earlier one had no noise, or the
            account and the trunk are not of the same time.
        """
        for notes in self._folder.glob(f"base-*/{PROVENANCE}"):
            if "privacy" not in json.loads(notes.read_bytes()):
                raise RunError(
                    f"{notes.parent} is of a warm start without noise, so noise promises its "
                    "clients nothing now; take a new run folder and other clients"
                )
        release, privacy = self._progress.release, self._privacy
        if not release:  # nobody is there, which the first round says
            return
        ledger = self._ledger()
        try:
            if self._is_known(ledger):
                return
            budgets = [(privacy.budget, privacy.promise.delta)]
            ledger.spend(Release(release, privacy.promise.mu), budgets=budgets)
        except RefusalError as refused:
            raise self._refusal(ledger) from refused

    def _is_known(self, ledger: ReleaseLedger) -> bool:
        """Return whether the account has this warm start, and the trunk is of its last round.

        From an older trunk the rounds after it would be published a second time, with other
        noise; without an account nobody knows what else was published.
        """
        done = len(self._progress.rounds)
        noted = {known.purpose: known.rounds for known in ledger.releases}
        published = noted.get(self._progress.release)
        if published is None and done:
            raise RunError(
                f"{self._account} does not know this warm start, {done} rounds of which are "
                "published; put it back as it was, or take a new run folder and other clients"
            )
        if published is not None and published > done:
            raise RunError(
                f"the trunk in {self._folder} is that after {done} rounds, and by "
                f"{self._account} {published} are published: going on would publish rounds a "
                "second time. Put the newest trunk.safetensors back, or take a new run folder "
                "and other clients"
            )
        return published is not None

    def publish(self) -> None:
        """Note in the account how many rounds others are about to see.

        Raises
        ------
        RunError
            If the account and the trunk are not of the same time.
        """
        if self._progress.release and self._progress.rounds:
            ledger = self._ledger()
            # An account that was lost meanwhile would promise less than was published.
            self._is_known(ledger)
            ledger.note_rounds(self._progress.release, len(self._progress.rounds))

    def drawn(self, trainers: Sequence[str], present: Collection[str]) -> list[str]:
        """Return the next round's clients among those who were there in the beginning.

        Whom a round asks must not depend on who failed before, which may say something of it.
        """
        number = len(self._progress.rounds) + 1
        count = self._settings.clients_per_round
        dealt = dealt_clients(self._progress.trainers, count, number, seed=self._seed)
        self._asked = [name for name in dealt if name in present]
        return self._asked

    def mean(
        self, answers: Mapping[str, Answer], trainers: Sequence[str]
    ) -> tuple[Moves, Figures]:
        """Average a round with noise; each further figure of it would need noise of its own."""
        deltas = (answer.delta(self._trunk) for answer in answers.values())
        generator = self._privacy.noise(len(self._progress.rounds) + 1)
        mean = self._over().release(deltas, self._trunk.shapes(), generator=generator)
        # Who answered is such a figure, too: all who were asked count as trained.
        self._progress.clients = sorted({*self._progress.clients, *self._asked})
        return mean, {"clients": len(self._asked)}

    def promise(self) -> dict[str, Any] | None:
        """Return what this warm start, and those of this folder before it, promise together."""
        known = self._ledger().releases
        own = self._progress.release
        return self._over().notes(before=[r.mu for r in known if r.purpose != own])

    def _over(self) -> RoundsPrivacy:
        settings = self._settings
        return self._privacy.over(
            len(self._progress.trainers),
            count=settings.clients_per_round,
            rounds=settings.rounds,
        )

    def _ledger(self) -> ReleaseLedger:
        try:
            return ReleaseLedger(self._account)
        except RefusalError as damaged:
            raise RunError(
                f"{self._account} says what the warm starts of this folder have published, and "
                "is damaged; restore it from a backup, or take a new run folder and other "
                "clients"
            ) from damaged

    def _refusal(self, ledger: ReleaseLedger) -> RunError:
        promise, budget = self._privacy.promise, self._privacy.budget
        together = epsilon_of(composed(promise.mu, ledger.mu), promise.delta)
        return RunError(
            f"by {self._account} {len(ledger.releases)} private warm starts were begun there "
            f"before; with one more the epsilon of their clients would be {together:.3g}, "
            f"above the budget of {budget:g}. Put the newest trunk.safetensors of the last one "
            "back, and it goes on at no cost; or raise privacy.budget"
        )
