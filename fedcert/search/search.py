"""Searching the candidates of a prior for the best on a support set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedcert.arrays import FloatArray
from fedcert.data.examples import Examples
from fedcert.priors.base import Prior
from fedcert.search.drawing import NO_CONSTANTS, led_by
from fedcert.search.racing import Race
from fedcert.search.scores import Scorer

__all__ = ["Winner", "search"]


@dataclass(frozen=True)
class Winner:
    """The best candidate on the choosing examples.

    Attributes
    ----------
    index : int
        Its number among the candidates.
    errors : int
        Its errors on the choosing examples.
    loss : float
        Its mean cross-entropy on them, nats.
    vector : numpy.ndarray
        Float64, shape ``(d,)``.
    """

    index: int
    errors: int
    loss: float
    vector: npt.NDArray[np.float64]


def search(
    prior: Prior,
    scorer: Scorer,
    examples: Examples,
    *,
    seed: str,
    candidates: int,
    constants: FloatArray = NO_CONSTANTS,
    chunk: int = 1024,
    on_scored: Callable[[int], None] = lambda _count: None,
) -> Winner:
    """Return the best candidate of a seed.

    The winner is the lowest (errors, loss, index), whatever the chunk. Candidates are drawn
    chunk by chunk and only the best is kept, so memory does not grow with their number. A
    candidate is dropped once its errors exceed the total of a rival (`fedcert.search.racing`):
    it cannot win any more, and is paid for all the same.

    Parameters
    ----------
    prior : Prior
        The distribution that candidates are drawn from.
    scorer : Scorer
        Counts errors.
    examples : Examples
        The choosing examples; none that only certifies may be among them.
    seed : str
        256 bits in hexadecimal.
    candidates : int
        M, how many candidates there are.
    constants : numpy.ndarray, optional
        Adapters that take the places of the first draws, shape ``(K, d)``.
    chunk : int (default: 1024)
        Candidates drawn at a time.
    on_scored : callable
        Called with the number of candidates that were done since the last call.

    Returns
    -------
    Winner
        The best candidate, drawn in full.

    Raises
    ------
    ValueError
        If there are no candidates.
    """
    race = Race(scorer, examples)
    best: Winner | None = None
    for first in range(0, candidates, chunk):
        count = min(chunk, candidates - first)
        drawn = prior.sample(seed, start=first, count=count)
        vectors = led_by(constants, drawn, start=first)
        leader = race.run(vectors, None if best is None else best.errors).best()
        if leader is not None:
            row, errors, loss = leader
            if best is None or (errors, loss) < (best.errors, best.loss):
                best = Winner(first + row, errors, loss, vectors[row])
        on_scored(count)
    if best is None:
        raise ValueError("a search needs at least one candidate")
    return best
