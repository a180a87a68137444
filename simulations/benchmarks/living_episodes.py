"""Playing living bounds out: somebody looks after every spot check, and stops when it is false.

The certificate is that of the best of M candidates that are all alike, chosen on the very
examples that certify it, and the spot checks are of that adapter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.certificates import binomial_upper_bound, uniform_weight
from fedcert.certificates.living import Start

__all__ = ["DELTA", "LOOKS", "WORLDS", "World", "false_living", "rows", "start_at"]

LOOKS, DELTA = 200, 0.05

IntArray = npt.NDArray[np.int64]
_BATCH = 10_000


@dataclass(frozen=True)
class World:
    """A risk, and how the certificate came about.

    Parameters
    ----------
    risk : float
        Of every candidate.
    trials : int
        Certifying examples, m.
    candidates : int
        M, the number of candidates that they chose among.
    """

    risk: float
    trials: int
    candidates: int

    @property
    def name(self) -> str:
        """What it is, for the results."""
        return f"the best of {self.candidates} with a risk of {self.risk:g}, m = {self.trials}"


WORLDS = (World(0.2, 16, 1), World(0.05, 64, 1), World(0.3, 24, 1000), World(0.5, 40, 100))
"""All of them."""


def start_at(errors: int, trials: int, candidates: int = 1) -> Start:
    """Return the start of a living bound, as of a certificate.

    Parameters
    ----------
    errors, trials : int
        Its counts.
    candidates : int
        Among how many it was chosen (default: 1).

    Returns
    -------
    Start
        As `fedcert.certificates.living.start_of` makes it.
    """
    return Start(
        errors=errors,
        trials=trials,
        weight=uniform_weight(candidates),
        fresh=0.0 if candidates == 1 else 0.5,
        bound=binomial_upper_bound(errors, trials, DELTA / 2 / candidates),
        delta=DELTA,
    )


Outcomes = Callable[[npt.NDArray[np.bool_], np.random.Generator], npt.NDArray[np.bool_]]


def false_living(
    world: World,
    episodes: int,
    *,
    seed: int | tuple[int, ...],
    counted: Outcomes = lambda wrong, _rng: wrong,
    ever_false: Callable[[World, int, IntArray], int] | None = None,
    **changed: Any,
) -> int:
    """Count the episodes in which a living bound was ever false.

    Parameters
    ----------
    world : World
        Where it is played.
    episodes : int
        How often.
    seed : int or tuple of int
        Draws errors and spot checks.
    counted : callable
        From which spot checks are wrong to which of them are counted as wrong (default: all).
    ever_false : callable, optional
        Says in how many of some episodes another rule is ever false, from the world, the
        certificate's errors, and the running counts.
    **changed
        What a start that cheats says otherwise.

    Returns
    -------
    int
        From 0 to `episodes`.
    """
    rng, false = np.random.default_rng(seed), 0
    for first in range(0, episodes, _BATCH):
        count = min(_BATCH, episodes - first)
        drawn = rng.binomial(world.trials, world.risk, size=(count, world.candidates))
        best = drawn.min(axis=1)
        wrong = counted(rng.random((count, LOOKS)) < world.risk, rng)
        running = np.concatenate([np.zeros((count, 1), int), wrong.cumsum(axis=1)], axis=1)
        for errors in set(best.tolist()):
            part = running[best == errors]
            if ever_false is not None:
                false += ever_false(world, errors, part)
                continue
            start = replace(start_at(errors, world.trials, world.candidates), **changed)
            false += _ever_false(start, part, world.risk)
    return false


def _ever_false(start: Start, running: IntArray, risk: float) -> int:
    """Count episodes in which a bound is below the risk at some look: then somebody stops."""
    if start.bound < risk:
        return len(running)
    errors, trials = np.meshgrid(
        np.arange(running.max() + 1), np.arange(LOOKS + 1), indexing="ij"
    )
    # The evidence follows from the counts: one table serves all episodes.
    table = start.log_wealth(np.minimum(errors, trials), trials, risk)
    wealth = table[running, np.arange(LOOKS + 1)]
    return int((wealth.max(axis=1) >= math.log(2 / start.delta)).sum())


def rows(episodes: int, *, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Play the living bound in every world.

    Parameters
    ----------
    episodes : int
        How often each is played.
    seed : int (default: 0)
        Draws the episodes.

    Yields
    ------
    dict
        A row as of `promise_episodes.rows`.
    """
    for number, world in enumerate(WORLDS):
        yield {
            "promise": "living",
            "recipe": f"union of {world.candidates}",
            "case": world.name,
            "episodes": episodes,
            "violations": false_living(world, episodes, seed=(seed, number)),
            "delta": DELTA,
        }
