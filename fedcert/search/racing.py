"""Races among candidates: the examples on which candidates differ most come first.

A candidate that has more errors so far than a rival has in total cannot win any more, so a
race drops it. That costs nothing in validity: the examples that decide are choosing examples,
and all candidates are paid for either way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedcert.data.examples import Examples
from fedcert.search.scores import Scorer

__all__ = ["Race", "Survivors"]

# The size of a race's first round; every round doubles what has been seen.
_FIRST_ROUND = 8
# Candidates that decide which examples discriminate best.
_PROBES = 32
# Candidates that are counted in full after the first round: the best is the incumbent.
_COUNTED_AHEAD = 16


@dataclass(frozen=True)
class Survivors:
    """The candidates that a race has not eliminated.

    Attributes
    ----------
    rows : numpy.ndarray
        Their row numbers, shape ``(survivors,)``.
    errors : numpy.ndarray
        Int64, their errors.
    losses : numpy.ndarray
        Float64, their mean cross-entropy, nats.
    """

    rows: npt.NDArray[np.int64]
    errors: npt.NDArray[np.int64]
    losses: npt.NDArray[np.float64]

    def best(self) -> tuple[int, int, float] | None:
        """Return row, errors and mean loss of the lowest (errors, loss, row), if any."""
        if len(self.rows) == 0:
            return None
        place = int(np.lexsort((self.losses, self.errors))[0])
        return int(self.rows[place]), int(self.errors[place]), float(self.losses[place])


class Race:
    """Scores candidates on growing parts of the examples, and eliminates as it goes.

    The first candidates that run decide the order of the examples for all that follow.

    Parameters
    ----------
    scorer : Scorer
        Counts errors.
    examples : Examples
        The choosing examples.
    """

    def __init__(self, scorer: Scorer, examples: Examples) -> None:
        self._scorer, self._examples = scorer, examples
        self._rounds: list[tuple[npt.NDArray[np.int64], Examples]] = []

    def run(self, vectors: npt.NDArray[np.float64], to_beat: int | None) -> Survivors:
        """Race candidates of shape ``(candidates, d)``.

        Parameters
        ----------
        vectors : numpy.ndarray
            The candidates.
        to_beat : int or None
            Errors of a rival outside of this race.

        Returns
        -------
        Survivors
            Among them is the lowest (errors, loss, row) if it beats the rival.
        """
        count = len(vectors)
        alive = np.arange(count)
        errors = np.zeros(count, dtype=np.int64)
        # By example: sums in another order would break ties between equal candidates.
        losses = np.zeros((count, len(self._examples)))
        limit = np.iinfo(np.int64).max if to_beat is None else to_beat
        rounds = self._rounds_for(vectors)
        for number, (columns, part) in enumerate(rounds):
            scores = self._scorer.score(vectors[alive], part)
            errors[alive] += scores.wrong.sum(axis=1)
            losses[np.ix_(alive, columns)] = scores.losses
            if len(rounds) == 1:
                break
            if number == 0:
                limit = min(limit, self._incumbent(vectors, errors, losses.sum(axis=1)))
            # Errors only grow: who has more than a rival's total cannot win, not even by
            # loss.
            alive = alive[errors[alive] <= limit]
            if len(alive) == 0:
                break
        return Survivors(alive, errors[alive], losses[alive].mean(axis=1))

    def _incumbent(
        self,
        vectors: npt.NDArray[np.float64],
        errors: npt.NDArray[np.int64],
        losses: npt.NDArray[np.float64],
    ) -> int:
        """Return the lowest total of those that were best in the first round."""
        ahead = np.lexsort((losses, errors))[:_COUNTED_AHEAD]
        rest = [
            self._scorer.score(vectors[ahead], part).wrong.sum(axis=1)
            for _, part in self._rounds[1:]
        ]
        return int((errors[ahead] + np.sum(rest, axis=0)).min())

    def _rounds_for(
        self, vectors: npt.NDArray[np.float64]
    ) -> list[tuple[npt.NDArray[np.int64], Examples]]:
        """Split the examples, the most discriminating first, into rounds of doubling size."""
        if not self._rounds:
            if len(self._examples) > _FIRST_ROUND:
                wrong = self._scorer.score(vectors[:_PROBES], self._examples).wrong
                order = _discriminating_first(wrong)
                ends, end = [], _FIRST_ROUND
                while end < len(order):
                    ends.append(end)
                    end *= 2
                columns = np.split(order, ends)
                parts = self._scorer.split(self._examples, columns)
                self._rounds = list(zip(columns, parts, strict=True))
            else:
                self._rounds = [(np.arange(len(self._examples)), self._examples)]
        return self._rounds


def _discriminating_first(wrong: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Order examples so that a candidate's errors show early, given some candidates' errors.

    Next comes the example that most of the candidates with few errors so far get wrong: each
    error halves a candidate's weight. The hardest examples alone would not do, since they are
    much alike and catch the same candidates.
    """
    weights, left = np.ones(len(wrong)), list(range(wrong.shape[1]))
    order = []
    while left:
        gains = weights @ wrong[:, left]
        chosen = left.pop(int(np.argmax(gains)))
        order.append(chosen)
        weights[wrong[:, chosen]] /= 2
    return np.array(order)
