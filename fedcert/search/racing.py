"""Races among candidates: the examples that tell most candidates apart come first.

A candidate that has more errors so far than a rival has in total cannot win any more, so a
race drops it. That costs nothing in validity: the examples that decide are choosing examples,
and all candidates are paid for either way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedcert.data.examples import Examples
from fedcert.search.scores import Scorer

__all__ = ["Heat", "Race"]

# The first part of a race; every part doubles what has been seen.
_FIRST_PART = 8
# Candidates that say which examples are telling.
_PROBES = 32
# Candidates that run ahead, to find out early what must be beaten.
_PACEMAKERS = 16


@dataclass(frozen=True)
class Heat:
    """How a race among some candidates ended.

    Attributes
    ----------
    alive : numpy.ndarray
        Row numbers of those that were not dropped, shape ``(survivors,)``.
    errors : numpy.ndarray
        Int64, their errors.
    losses : numpy.ndarray
        Float64, their mean cross-entropy, nats.
    """

    alive: npt.NDArray[np.int64]
    errors: npt.NDArray[np.int64]
    losses: npt.NDArray[np.float64]

    def best(self) -> tuple[int, int, float] | None:
        """Return row, errors and mean loss of the lowest (errors, loss, row), if any."""
        if len(self.alive) == 0:
            return None
        place = int(np.lexsort((self.losses, self.errors))[0])
        return int(self.alive[place]), int(self.errors[place]), float(self.losses[place])


class Race:
    """Scores candidates on growing parts of the examples, and drops as it goes.

    The first candidates that run decide the order of the examples for all that follow.

    Parameters
    ----------
    scorer : Scorer
        Counts errors.
    examples : Examples
        The choosing examples.
    dropping : bool (default: True)
        False scores everybody on everything.
    """

    def __init__(self, scorer: Scorer, examples: Examples, *, dropping: bool = True) -> None:
        self._scorer, self._examples = scorer, examples
        self._dropping = dropping and len(examples) > _FIRST_PART
        self._parts: list[tuple[npt.NDArray[np.int64], Examples]] = []

    def run(
        self,
        vectors: npt.NDArray[np.float64],
        to_beat: int | None,
        *,
        slack: int = 0,
        share: float = 1.0,
    ) -> Heat:
        """Race candidates of shape ``(candidates, d)``.

        Parameters
        ----------
        vectors : numpy.ndarray
            The candidates.
        to_beat : int or None
            Errors of a rival outside of this race.
        slack : int (default: 0)
            Errors that a candidate may have more than the lowest total and stay.
        share : float (default: 1)
            Share of the candidates that at most stay after each part but the last.
        """
        count = len(vectors)
        alive = np.arange(count)
        errors = np.zeros(count, dtype=np.int64)
        # By example: sums in another order would break ties between equal candidates.
        losses = np.zeros((count, len(self._examples)))
        limit = np.iinfo(np.int64).max - slack if to_beat is None else to_beat
        parts = self._parts_for(vectors)
        for stage, (columns, part) in enumerate(parts):
            scores = self._scorer.score(vectors[alive], part)
            errors[alive] += scores.wrong.sum(axis=1)
            losses[np.ix_(alive, columns)] = scores.losses
            if len(parts) == 1:
                break
            if stage == 0:
                limit = min(limit, self._pace(vectors, errors, losses.sum(axis=1)))
            # Errors only grow: who has more than a rival's total cannot win, not even by
            # loss.
            alive = alive[errors[alive] <= limit + slack]
            if len(alive) == 0:
                break
            if share < 1 and stage < len(parts) - 1:
                order = np.lexsort((losses[alive].sum(axis=1), errors[alive]))
                alive = np.sort(alive[order[: math.ceil(share * len(alive))]])
        return Heat(alive, errors[alive], losses[alive].mean(axis=1))

    def _pace(
        self,
        vectors: npt.NDArray[np.float64],
        errors: npt.NDArray[np.int64],
        losses: npt.NDArray[np.float64],
    ) -> int:
        """Return the lowest total of those that were best in the first part."""
        ahead = np.lexsort((losses, errors))[:_PACEMAKERS]
        rest = [
            self._scorer.score(vectors[ahead], part).wrong.sum(axis=1)
            for _, part in self._parts[1:]
        ]
        return int((errors[ahead] + np.sum(rest, axis=0)).min())

    def _parts_for(
        self, vectors: npt.NDArray[np.float64]
    ) -> list[tuple[npt.NDArray[np.int64], Examples]]:
        """Split the examples, the most telling first, into parts of doubling size."""
        if not self._parts:
            if self._dropping:
                wrong = self._scorer.score(vectors[:_PROBES], self._examples).wrong
                order = _telling_first(wrong)
                ends, end = [], _FIRST_PART
                while end < len(order):
                    ends.append(end)
                    end *= 2
                columns = np.split(order, ends)
                parts = self._scorer.split(self._examples, columns)
                self._parts = list(zip(columns, parts, strict=True))
            else:
                self._parts = [(np.arange(len(self._examples)), self._examples)]
        return self._parts


def _telling_first(wrong: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
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
