"""Playing promises out where everything that they say is known exactly.

As in `episodes`, synthetic candidates err with given probabilities, so that no finite test set
blurs what is true. The worlds are hard: what is promised lies just beyond a value that the
bound takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.certificates import (
    WEIGHT_DENOMINATOR,
    AbstentionPromise,
    Answers,
    Choice,
    Early,
    Evidence,
    ExitPromise,
    GainPromise,
    Outcome,
    Promise,
    Recipe,
    ReferencePromise,
    SetsPromise,
    SplitRecipe,
    UnionRecipe,
    binomial_upper_bound,
)
from fedcert.certificates.promises.limits import lower_limit

__all__ = [
    "DELTA",
    "SIZE",
    "WORLDS",
    "World",
    "cases",
    "false_promises",
    "rows",
]

SIZE = 64
"""Examples in every episode, n."""
DELTA = 0.05
"""What each promise has for itself."""
_LABELS = 6
_HALF = SIZE // 2


@dataclass(frozen=True)
class World:
    """How a candidate, and the rival, answer one example.

    Parameters
    ----------
    name : str
        For the results.
    margins : tuple of float
        The margins that occur, in increasing order.
    shares : tuple of float
        Probability of each.
    wrong : tuple of float
        Probability of a wrong label at each.
    rival_wrong : tuple of float
        Probability that the rival is wrong, where the candidate is right and where it is wrong.
    ranks : tuple of float
        Where the candidate is wrong, probability that the true label is the second, third, ...
        most probable of six.
    """

    name: str
    margins: tuple[float, ...]
    shares: tuple[float, ...]
    wrong: tuple[float, ...]
    rival_wrong: tuple[float, float] = (0.0, 1.0)
    ranks: tuple[float, ...] = (0.2,) * (_LABELS - 1)

    @property
    def won_and_lost(self) -> tuple[float, float]:
        """Probability of an example that is won, and of one that is lost."""
        error = float(np.dot(self.shares, self.wrong))
        return (1 - error) * self.rival_wrong[0], error * (1 - self.rival_wrong[1])

    def missed(self, size: int) -> float:
        """Return the probability that a set of `size` labels misses the true one."""
        return float(np.dot(self.shares, self.wrong)) * sum(self.ranks[size - 1 :])

    def policy(self, threshold: float) -> tuple[float, float]:
        """Return the error of early exits above a threshold to the rival, and who goes on."""
        shares, wrong = np.array(self.shares), np.array(self.wrong)
        goes_on = np.array(self.margins) <= threshold
        later = (1 - wrong) * self.rival_wrong[0] + wrong * self.rival_wrong[1]
        error = float(np.dot(shares, np.where(goes_on, later, wrong)))
        return error, float(np.dot(shares, goes_on))

    def answered(self, threshold: float) -> tuple[float, float]:
        """Return the share answered above a threshold, and the error among the answered."""
        above = np.array(self.margins) > threshold
        share = float(np.dot(self.shares, above))
        wrong = float(np.dot(np.array(self.shares) * above, self.wrong))
        return share, wrong / share if share else 0.0

    def drawn(self, rng: np.random.Generator) -> tuple[Answers, Answers]:
        """Draw what a candidate and the rival answer on `SIZE` examples."""
        level = rng.choice(len(self.margins), size=SIZE, p=self.shares)
        wrong = rng.random(SIZE) < np.array(self.wrong)[level]
        rank = np.where(wrong, 1 + rng.choice(_LABELS - 1, size=SIZE, p=self.ranks), 0)
        odds = np.where(wrong, self.rival_wrong[1], self.rival_wrong[0])
        theirs = (rng.random(SIZE) < odds).astype(np.int64)
        return _answers(np.array(self.margins)[level], rank), _answers(np.ones(SIZE), theirs)


def _answers(margins: npt.NDArray[np.float64], rank: npt.NDArray[np.int64]) -> Answers:
    """Return logits in which label 0 is the true one, and has the given rank."""
    below = np.arange(_LABELS) - 1.0
    values = np.where(np.arange(_LABELS) == 0, 0.0, -margins[:, None] - below)
    own = np.take_along_axis(values, rank[:, None], axis=1)
    others = values[np.arange(_LABELS) != rank[:, None]].reshape(len(rank), _LABELS - 1)
    return Answers(np.hstack([own, others]), np.zeros(len(rank), dtype=np.int64))


_R_ALL = binomial_upper_bound(0, _HALF, DELTA / 2) + 1e-9
"""An error among 32 answers that is just above the bound at none wrong."""
_RARELY = lower_limit(_HALF, _HALF, DELTA / 2) - 1e-9
"""A share of answers that is just below the limit at 32 of 32."""
_LEVELS = 200
_LOST = binomial_upper_bound(1, _HALF, DELTA / 2) + 1e-9
_MISSED = binomial_upper_bound(0, _HALF, DELTA) + 1e-9
_ON = binomial_upper_bound(0, _HALF, DELTA / 2) + 1e-9
_PUBLIC = binomial_upper_bound(2, SIZE, DELTA / 4) + 1e-9
_WON = lower_limit(10, _HALF, DELTA / 2) - 1e-9

WORLDS = (
    World(
        "answers and their errors just beyond their bounds",
        (1.0, 2.0),
        (1 - _RARELY, _RARELY),
        (1.0, _R_ALL),
    ),
    World(
        "a margin that says nothing",
        tuple(1.0 + i / 4 for i in range(_LEVELS)),
        (1 / _LEVELS,) * _LEVELS,
        (0.4,) * _LEVELS,
    ),
    World(
        "a margin that says much",
        (0.3, 0.8, 1.3, 2.5),
        (0.25,) * 4,
        (0.6, 0.3, 0.1, 0.02),
    ),
    World(
        "won and lost just beyond their limits",
        (1.0,),
        (1.0,),
        (_LOST,),
        rival_wrong=(_WON / (1 - _LOST), 0.0),
    ),
    World("examples are lost, and none is won", (1.0,), (1.0,), (0.2,), rival_wrong=(0.0, 0.0)),
    World("no gain at all", (1.0,), (1.0,), (0.3,), rival_wrong=(0.2, 1 - 0.2 * 0.7 / 0.3)),
    World(
        "sets that miss just above the bound",
        (1.0,),
        (1.0,),
        (_MISSED,),
        ranks=(0.0, 0.0, 1.0, 0.0, 0.0),
    ),
    World(
        "a policy's errors and who goes on just beyond their bounds",
        (1.0, 2.0),
        (_ON, 1 - _ON),
        (0.0, _ON / (1 - _ON)),
        rival_wrong=(0.0, 0.0),
    ),
    World(
        "going on changes nothing",
        tuple(1.0 + i / 4 for i in range(_LEVELS)),
        (1 / _LEVELS,) * _LEVELS,
        (0.4,) * _LEVELS,
        rival_wrong=(0.4, 0.4),
    ),
    World(
        "going on helps where the margin is low",
        (0.3, 0.8, 1.3, 2.5),
        (0.25,) * 4,
        (0.6, 0.3, 0.1, 0.02),
        rival_wrong=(0.03, 0.3),
    ),
    World("a public sample just beyond the bound of 4 draws", (1.0,), (1.0,), (_PUBLIC,)),
)
"""All of them."""

_WORLDS_OF = {
    AbstentionPromise.kind: WORLDS[:3],
    GainPromise.kind: WORLDS[3:6],
    SetsPromise.kind: (WORLDS[2], WORLDS[5], WORLDS[6]),
    ExitPromise.kind: WORLDS[7:10],
    ReferencePromise.kind: (WORLDS[2], WORLDS[10]),
}
"""Where each promise is played: where what it is about varies, or lies beyond a bound."""


class PlayedEvidence(Evidence):
    """What a candidate answered in one episode.

    Parameters
    ----------
    own, rival : Answers
        On all examples.
    certify : numpy.ndarray
        Which examples certify, bool, shape (n,).
    """

    def __init__(self, own: Answers, rival: Answers, certify: npt.NDArray[np.bool_]) -> None:
        super().__init__(1e-4)
        self._rival = _only(rival, certify)
        self._certifying = _only(own, certify)
        self._choosing = None if certify.all() else _only(own, ~certify)

    @property
    def choosing(self) -> Answers | None:
        """The candidate's answers on the examples that do not certify it; None if all do."""
        return self._choosing

    @property
    def certifying(self) -> Answers:
        """The candidate's answers on the certifying examples."""
        return self._certifying

    def of(self, rival: str) -> Answers:
        """Return the rival's answers on the same certifying examples."""
        return self._rival


class PlayedReference(PlayedEvidence):
    """The same where a public sample is what the candidate answers."""

    def __init__(self, own: Answers, rival: Answers, certify: npt.NDArray[np.bool_]) -> None:
        super().__init__(own, rival, certify)
        self._sample = own

    @property
    def reference(self) -> Answers:
        """The candidate's answers on the public sample."""
        return self._sample


class PlayedPolicy(PlayedEvidence):
    """The same where the candidate answers first, and the rival is what it goes on to."""

    def __init__(self, own: Answers, rival: Answers, certify: npt.NDArray[np.bool_]) -> None:
        super().__init__(rival, own, certify)
        self._first = Early(
            adapter="0" * 64,
            # It comes with its rival: the weight of the pair is the recipe's.
            weight=WEIGHT_DENOMINATOR,
            choosing=None if certify.all() else _only(own, ~certify),
            certifying=_only(own, certify),
        )

    def early(self, point: str) -> Early:
        """Return the candidate's answers."""
        return self._first


_SEEN = {ExitPromise.kind: PlayedPolicy, ReferencePromise.kind: PlayedReference}


def _only(answers: Answers, rows: npt.NDArray[np.bool_]) -> Answers:
    return Answers(answers.logits[rows], answers.labels[rows])


def false_promises(
    recipe: Recipe, promise: Promise[Any], world: World, episodes: int, *, seed: Any
) -> int:
    """Count the episodes in which a promise about the chosen candidate was false.

    Parameters
    ----------
    recipe : Recipe
        Of `SplitRecipe` or `UnionRecipe`; it chooses the candidate with the fewest errors.
    promise : Promise
        One of its promises. What is public may have been looked at before: then the sample
        chooses.
    world : World
        Where it is played; all candidates are alike.
    episodes : int
        How often.
    seed : int or tuple of int
        Draws the answers.

    Returns
    -------
    int
        False promises, from 0 to `episodes`.
    """
    rng = np.random.default_rng(seed)
    choosing, span = recipe.choosing(SIZE), recipe.certifying(SIZE)
    certify = np.zeros(SIZE, dtype=np.bool_)
    certify[span.as_slice()] = True
    looked = slice(None) if promise.public else choosing.as_slice()
    seen = _SEEN.get(promise.kind, PlayedEvidence)
    false = 0
    for _ in range(episodes):
        drawn = [world.drawn(rng) for _ in range(recipe.candidates)]
        errors = [int((own.leads[looked] <= 0).sum()) for own, _ in drawn]
        index = int(np.argmin(errors))
        ground = recipe.ground(promise, Choice(index=index), SIZE)
        outcome = promise.fulfil(seen(*drawn[index], certify), ground)
        false += is_false(promise, outcome, world)
    return false


def is_false(promise: Promise[Any], outcome: Outcome, world: World) -> bool:
    """Return whether anything that an outcome says is wrong in a world.

    Parameters
    ----------
    promise : Promise
        What was promised.
    outcome : Outcome
        What was counted.
    world : World
        Where it was counted.

    Returns
    -------
    bool
        True if a bound of it is false.
    """
    said: Any = outcome
    if outcome.kind == AbstentionPromise.kind:
        share, wrong = world.answered(said.threshold)
        return bool(
            said.answered_at_least > share
            or (said.wrong_at_most is not None and said.wrong_at_most < wrong)
        )
    if outcome.kind == GainPromise.kind:
        won, lost = world.won_and_lost
        return bool(said.at_least > won - lost)
    if outcome.kind == ReferencePromise.kind:
        return bool(said.at_most < world.answered(0.0)[1])
    if outcome.kind == ExitPromise.kind:
        error, goes_on = world.policy(said.threshold)
        return bool(said.wrong_at_most < error or said.goes_on_at_most < goes_on)
    return bool(said.missed_at_most < world.missed(getattr(promise, "size", 0)))


def cases() -> Iterator[tuple[Recipe, Promise[Any], World]]:
    """Yield what is played: each promise, by choice and by union, in each of its worlds."""
    promises = (
        AbstentionPromise(share=1.0, most_wrong=0.25),
        GainPromise(share=1.0),
        SetsPromise(share=1.0, size=3),
        ExitPromise(share=1.0, early="early"),
        ExitPromise(share=1.0, early="early", threshold=1.5),
        ReferencePromise(share=1.0),
    )
    for promise in promises:
        terms: dict[str, Any] = {"delta": DELTA, "promises": (promise,)}
        recipes = (
            SplitRecipe(candidates=2, **terms),
            UnionRecipe(candidates=1, **terms),
            UnionRecipe(candidates=4, **terms),
        )
        for recipe in recipes:
            for world in _WORLDS_OF[promise.kind]:
                yield recipe, promise, world


def rows(episodes: int, *, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Play every promise in every world.

    Parameters
    ----------
    episodes : int
        How often each is played.
    seed : int (default: 0)
        Draws the episodes.

    Yields
    ------
    dict
        ``{"promise", "recipe", "case", "episodes", "violations", "delta"}``.
    """
    for number, (recipe, promise, world) in enumerate(cases()):
        yield {
            "promise": promise.kind,
            "recipe": f"{recipe.kind} of {recipe.candidates}",
            "case": world.name,
            "episodes": episodes,
            "violations": false_promises(recipe, promise, world, episodes, seed=(seed, number)),
            "delta": DELTA,
        }
