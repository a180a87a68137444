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

# The first part of a race; every part doubles what has been seen.
_FIRST_PART = 8
# Candidates of each chunk that run ahead, to find out early what must be beaten.
_PACEMAKERS = 8


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
    start: int = 0,
    chunk: int = 1024,
    early_dropping: bool = True,
    on_scored: Callable[[int], None] = lambda _count: None,
) -> Winner:
    """Score `candidates` candidates of a seed, from number `start` on; return the best.

    The winner is the lowest (errors, loss, index), whatever the chunk. Candidates are drawn
    chunk by chunk and only the best is kept, so memory does not grow with their number.

    Parameters
    ----------
    prior : Prior
        What candidates are drawn from.
    scorer : Scorer
        Counts errors.
    examples : Examples
        The choosing examples; none that only certifies may be among them.
    seed : str
        256 bits in hexadecimal.
    candidates, start : int
        How many, and the number of the first.
    chunk : int (default: 1024)
        Candidates drawn at a time.
    early_dropping : bool (default: True)
        Score growing parts of the examples and drop a candidate once its errors exceed the
        total of a rival. A dropped candidate cannot win, so the result is the same, and all
        candidates are paid for either way.
    on_scored : callable
        Told how many more candidates are done, now and then.
    """
    parts = _parts(examples) if early_dropping else [examples]
    best: Winner | None = None
    for first in range(start, start + candidates, chunk):
        count = min(chunk, start + candidates - first)
        vectors = prior.sample(seed, start=first, count=count)
        found = _race(vectors, parts, scorer, None if best is None else best.errors)
        if found is not None:
            row, errors, loss = found
            if best is None or (errors, loss) < (best.errors, best.loss):
                best = Winner(first + row, errors, loss, vectors[row])
        on_scored(count)
    if best is None:
        raise ValueError("a search needs at least one candidate")
    return best


def _parts(examples: Examples) -> list[Examples]:
    """Split examples into parts that each double what has been seen."""
    ends, end = [], _FIRST_PART
    while end < len(examples):
        ends.append(end)
        end *= 2
    return [
        examples.take(slice(a, b))
        for a, b in zip([0, *ends], [*ends, len(examples)], strict=True)
    ]


def _race(
    vectors: npt.NDArray[np.float64],
    parts: list[Examples],
    scorer: Scorer,
    to_beat: int | None,
) -> tuple[int, int, float] | None:
    """Return row, errors and mean loss of the best of a chunk.

    None means that every candidate has more errors than `to_beat`.
    """
    alive = np.arange(len(vectors))
    errors, losses = np.zeros(len(vectors), dtype=np.int64), np.zeros(len(vectors))
    limit = np.iinfo(np.int64).max if to_beat is None else to_beat
    for stage, part in enumerate(parts):
        scores = scorer.score(vectors[alive], part)
        errors[alive] += scores.wrong.sum(axis=1)
        losses[alive] += scores.losses.sum(axis=1)
        if stage == 0 and len(parts) > 1:
            ahead = np.lexsort((losses, errors))[:_PACEMAKERS]
            rest = [scorer.score(vectors[ahead], later).wrong for later in parts[1:]]
            totals = errors[ahead] + sum(wrong.sum(axis=1) for wrong in rest)
            limit = min(limit, int(totals.min()))
        # Errors only grow: who has more than a rival's total cannot win, not even by loss.
        alive = alive[errors[alive] <= limit]
        if len(alive) == 0:
            return None
    order = np.lexsort((losses[alive], errors[alive]))
    row = int(alive[order[0]])
    return row, int(errors[row]), float(losses[row]) / sum(len(part) for part in parts)
