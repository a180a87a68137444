"""Playing a recipe out where every risk is known exactly, to see how often it is false.

Synthetic candidates err with a given probability on every example, alone or together with
the others, so that no finite test set blurs what is true. The cases are chosen to be hard:
risks just above a value that the bound takes, candidates that are all bad or all alike, and
clients that try several times. A recipe that passes is not proven; one that fails is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from fedcert.arrays import FloatArray
from fedcert.certificates.attempts import attempt_delta
from fedcert.certificates.bounds import binomial_upper_bound
from fedcert.certificates.counts import Counts, ErrorTable, Selection
from fedcert.certificates.randomized import LEAST
from fedcert.certificates.recipes import Recipe
from fedcert.certificates.recipes.session import TableSession
from fedcert.errors import CertificateError

__all__ = ["CASES", "SIZE", "Case", "Played", "excess", "false_certificates", "play"]

SIZE = 40
"""Examples in every episode, n."""

_BATCH = 2_000

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    """One world in which certificates are issued.

    Parameters
    ----------
    name : str
        For the results.
    risks : callable
        From a recipe and a number of candidates to their risks, shape (M,).
    shared : float
        Share of the examples on which all candidates err together, as far as their risks
        allow: there one draw decides for all (default: 0.0).
    attempts : int
        How often a client may try; the attempts share delta, and one false certificate
        among them is a violation (default: 1).
    """

    name: str
    risks: Callable[[Recipe, int], FloatArray]
    shared: float = 0.0
    attempts: int = 1


def hardest(recipe: Recipe, errors: int) -> float:
    """Return a risk that makes certificates from up to `errors` errors just false."""
    trials = recipe.certifying(SIZE).size
    try:
        bound = recipe.bound(errors, trials)
    except CertificateError:
        # Shares differ from candidate to candidate, or there are none: take an equal one.
        bound = binomial_upper_bound(errors, trials, recipe.delta / recipe.candidates)
    return min(bound + 1e-9, 1.0)


def _tied(errors: int) -> Callable[[Recipe, int], FloatArray]:
    return lambda recipe, count: np.full(count, hardest(recipe, errors))


def _tied_on_first_attempt(recipe: Recipe, count: int) -> FloatArray:
    first = attempt_delta(recipe.delta, 1, recipe.first_share)
    return _tied(2)(recipe.with_delta(first), count)


def _spread(low: float, high: float) -> Callable[[Recipe, int], FloatArray]:
    return lambda _recipe, count: np.linspace(low, high, count)


CASES = (
    Case("all just above the bound at 0 errors", _tied(0)),
    Case("all just above the bound at 2 errors", _tied(2)),
    Case("all just above the bound at 2 errors, erring together", _tied(2), shared=0.7),
    Case("risks from .15 to .6", _spread(0.15, 0.6), shared=0.5),
    Case("a bad prior, risks from .85 to .95", _spread(0.85, 0.95)),
    Case("hardly ever wrong", _spread(0.0, 0.01)),
    Case("nearly always wrong", _spread(0.97, 1.0)),
    Case("the best of 3 attempts", _tied_on_first_attempt, attempts=3),
)
"""What every recipe goes through."""


@dataclass(frozen=True)
class Played:
    """How one recipe fared in one case.

    Attributes
    ----------
    case : str
        The case's name.
    episodes : int
        How often it was played.
    violations : int
        Episodes in which a certificate was false.
    p_value : float
        Probability of so many, if each is false with probability delta. One near 0 means
        that the recipe does not keep its promise.
    """

    case: str
    episodes: int
    violations: int
    p_value: float


def play(
    recipe: Recipe, *, cases: Sequence[Case] = CASES, episodes: int = 2_000, seed: int = 0
) -> list[Played]:
    """Play a recipe in every case, with `SIZE` examples an episode.

    Few candidates make it hard, such as 20: then a union over them is nearly tight.

    Parameters
    ----------
    recipe : Recipe
        What certifies.
    cases : sequence of Case
        The worlds (default: `CASES`).
    episodes : int
        How often each is played.
    seed : int
        Draws the episodes.

    Returns
    -------
    list of Played
        One outcome for each case.
    """
    outcomes = []
    for number, case in enumerate(cases):
        violated = false_certificates(recipe, case, episodes, seed=(seed, number))
        count = int(violated.sum())
        p_value = excess(count, episodes, recipe.delta)
        outcomes.append(Played(case.name, episodes, count, p_value))
    return outcomes


def excess(violations: int, episodes: int, delta: float) -> float:
    """Return the probability of so many violations if each has the probability delta.

    Parameters
    ----------
    violations : int
        Episodes in which a certificate was false.
    episodes : int
        How many were played.
    delta : float
        Probability with which each may be false.

    Returns
    -------
    float
        The upper tail of the binomial distribution, violations included.
    """
    return float(binom.sf(violations - 1, episodes, delta))


def false_certificates(
    recipe: Recipe, case: Case, episodes: int, *, seed: int | tuple[int, ...]
) -> BoolArray:
    """Return in which episodes a certificate was false, shape (episodes,).

    Parameters
    ----------
    recipe : Recipe
        The recipe that certifies.
    case : Case
        The world.
    episodes : int
        How often it is played, E.
    seed : int or tuple of int
        Draws the predictions.

    Returns
    -------
    numpy.ndarray
        Bool, shape ``(E,)``.
    """
    rng = np.random.default_rng(seed)
    risks = case.risks(recipe, recipe.universe)
    violated = np.zeros(episodes, dtype=np.bool_)
    for attempt in range(1, case.attempts + 1):
        paid = recipe
        if case.attempts > 1:
            part = attempt_delta(recipe.delta, attempt, recipe.first_share)
            paid = recipe.with_delta(part)
        for start in range(0, episodes, _BATCH):
            batch = violated[start : start + _BATCH]
            batch |= _false(paid, risks, case.shared, len(batch), rng)
    return violated


def _false(
    recipe: Recipe, risks: FloatArray, shared: float, episodes: int, rng: np.random.Generator
) -> BoolArray:
    wrong = _drawn(risks, shared, episodes, rng)
    numbers = np.ones(episodes)
    if recipe.randomized:
        numbers = np.maximum(1 - rng.random(episodes), LEAST)  # 1 is possible, 0 is not
    if not recipe.selects_from_counts():
        played = zip(wrong, numbers, strict=True)
        return np.array([_false_alone(recipe, one, risks, number) for one, number in played])
    counts = _counted(recipe, wrong)
    if recipe.randomized:
        counts = replace(counts, numbers=numbers)
    kept = recipe.reaching(counts, risks)
    if kept is None:
        selection = recipe.select(counts)
        known = _vote_risks(selection, risks, shared) if recipe.kind == "vote" else None
        known = selection.averaged(recipe.hypothesis_risks(risks)) if known is None else known
        return known > selection.bounds
    chosen = replace(
        counts,
        choosing=np.take_along_axis(counts.choosing, kept, axis=1),
        certifying=np.take_along_axis(counts.certifying, kept, axis=1),
        losses=np.zeros(kept.shape),
    )
    selection = recipe.select(chosen)
    return selection.averaged(risks[kept]) > selection.bounds


def _false_alone(recipe: Recipe, wrong: BoolArray, risks: FloatArray, number: float) -> bool:
    """Return whether a recipe with a `choose` of its own is false in one episode."""
    table = ErrorTable(wrong=wrong, losses=np.zeros(wrong.shape), test_risk=risks)
    session = _PlayedSession(table, candidates=len(wrong), n=SIZE, number=number)
    chosen = recipe.choose(session)
    row = session.rows_of(chosen.vector[None])
    span = recipe.certifies_on(chosen.choice, SIZE)
    errors = int(wrong[row, span.as_slice()].sum())
    choice = replace(chosen.choice, number=number)
    return bool(risks[row][0] > recipe.bound(errors, span.size, choice))


class _PlayedSession(TableSession):
    """A session in which refining returns whatever fits best: nothing could be greedier."""

    def posterior_means(
        self, *, candidates: int, chains: int, steps: int, count: int = 1
    ) -> FloatArray:
        order = self._wrong.sum(axis=1).argsort(kind="stable")
        return np.asarray(order[:count, None], dtype=np.float64)


def _drawn(
    risks: FloatArray, shared: float, episodes: int, rng: np.random.Generator
) -> BoolArray:
    """Return which predictions are wrong, shape (E, M, SIZE)."""
    draws = rng.random((episodes, len(risks), SIZE))
    if shared:
        together = rng.random((episodes, 1, SIZE)) < shared
        draws = np.where(together, rng.random((episodes, 1, SIZE)), draws)
    wrong: BoolArray = draws < risks[:, None]
    return wrong


def _counted(recipe: Recipe, wrong: BoolArray) -> Counts:
    choosing, certifying = recipe.choosing(SIZE), recipe.certifying(SIZE)
    return Counts(
        choosing=wrong[:, :, choosing.as_slice()].sum(axis=2),
        certifying=wrong[:, :, certifying.as_slice()].sum(axis=2),
        losses=np.zeros(wrong.shape[:2]),
        chosen_on=choosing.size,
        certified_on=certifying.size,
    )


def _vote_risks(selection: Selection, risks: FloatArray, shared: float) -> FloatArray:
    """Sum over all patterns of right and wrong candidates, shape (E,)."""
    patterns = np.array(list(product([False, True], repeat=len(risks))))
    alone = np.where(patterns, risks, 1 - risks).prod(axis=1)
    # Together, those are wrong whose risk exceeds one draw: the next risk above and below.
    above = np.where(patterns, risks, 1.0).min(axis=1)
    below = np.where(patterns, 0.0, risks).max(axis=1)
    chances = shared * np.maximum(above - below, 0.0) + (1 - shared) * alone
    assert selection.posterior is not None
    lost: FloatArray = (selection.posterior @ patterns.T >= 0.5).astype(np.float64)
    chance: FloatArray = lost @ chances
    return chance
