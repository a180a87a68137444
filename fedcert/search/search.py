"""Searching the candidates of a prior for the best on a support set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from fedcert.data.examples import Examples
from fedcert.priors.base import FloatArray, Prior
from fedcert.randomness import candidate_noise
from fedcert.search.drawing import NO_CONSTANTS, led_by
from fedcert.search.racing import Race
from fedcert.search.scores import Scorer

__all__ = ["Dropping", "Winner", "search"]

Dropping = Literal["none", "exact", "halving"]
"""How candidates are dropped before they have been scored on all examples."""

# A sketch of a candidate may have so many errors more than the best candidate, and the share
# of the sketches that stay after each part.
_SLACK, _SHARE = 2, 0.25


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
    constants: FloatArray = NO_CONSTANTS,
    chunk: int = 1024,
    early_dropping: Dropping = "exact",
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
    constants : numpy.ndarray, optional
        Adapters that take the places of the first draws, whatever the dropping.
    chunk : int (default: 1024)
        Candidates drawn at a time.
    early_dropping : str (default: "exact")
        ``"exact"``: score growing parts of the examples and drop a candidate once its errors
        exceed the total of a rival. A dropped candidate cannot win, so the result is that of
        ``"none"``. ``"halving"``: draw sketches first (`Prior.sketch`), keep a share of them
        after each part (successive halving: Jamieson and Talwalkar, AISTATS 2016), and draw
        in full only those that are left. That is faster and mostly finds the same winner, but
        need not. All candidates are paid for either way.
    on_scored : callable
        Told how many more candidates are done, now and then.
    """
    if early_dropping not in get_args(Dropping):
        raise ValueError(
            f"early_dropping is one of {get_args(Dropping)}, not {early_dropping!r}"
        )
    race = Race(scorer, examples, dropping=early_dropping != "none")
    best: Winner | None = None
    for first in range(start, start + candidates, chunk):
        count = min(chunk, start + candidates - first)
        to_beat = None if best is None else best.errors
        if early_dropping == "halving" and first >= len(constants):
            numbers, vectors = _promising(prior, race, seed, first, count, to_beat)
        else:
            numbers = np.arange(first, first + count)
            drawn = prior.sample(seed, start=first, count=count)
            vectors = led_by(constants, drawn, start=first)
        found = race.run(vectors, to_beat).best() if len(vectors) else None
        if found is not None:
            row, errors, loss = found
            if best is None or (errors, loss) < (best.errors, best.loss):
                best = Winner(int(numbers[row]), errors, loss, vectors[row])
        on_scored(count)
    if best is None:
        raise ValueError("a search needs at least one candidate")
    return best


def _promising(
    prior: Prior, race: Race, seed: str, first: int, count: int, to_beat: int | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the numbers and vectors of the candidates whose sketches do well."""
    noise = candidate_noise(seed, first, count, prior.noise_width)
    sketches = prior.sketch().transform(noise)
    alive = race.run(sketches, to_beat, slack=_SLACK, share=_SHARE).alive
    vectors = prior.transform(noise[alive]) if len(alive) else sketches[:0]
    return first + alive, vectors
