"""Searching the candidates of a prior for the best on a support set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedcert.data.examples import Examples
from fedcert.priors.base import Prior
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
    chunk: int = 1024,
    on_scored: Callable[[int], None] = lambda _count: None,
) -> Winner:
    """Score candidates 0 to ``candidates - 1`` of a seed; return the best.

    Candidates are drawn chunk by chunk and only the best is kept, so memory does not grow
    with their number. The winner is the lowest (errors, loss, index), whatever the chunk.
    """
    best: Winner | None = None
    for start in range(0, candidates, chunk):
        vectors = prior.sample(seed, start=start, count=min(chunk, candidates - start))
        scores = scorer.score(vectors, examples, on_scored=on_scored)
        row, errors, loss = scores.best()
        if best is None or (errors, loss) < (best.errors, best.loss):
            best = Winner(start + row, errors, loss, vectors[row])
    if best is None:
        raise ValueError("a search needs at least one candidate")
    return best
