"""How often certificates are false of a structure that was computed from inputs.

A rule may read off inputs, without their labels, which part of an adapter to train. Played
here is the greediest one that there could be: it remembers the inputs it read, is right on
these, and wrong on others at a given risk. Read off choosing inputs it is a finalist like any
other. Read off certifying inputs it looks good on these alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.certificates import PosteriorSplitRecipe
from fedcert.simulations.benchmarks.episodes import SIZE, hardest

__all__ = ["INPUTS", "Inputs", "false_structures"]


@dataclass(frozen=True)
class Inputs:
    """Which inputs a client has.

    Parameters
    ----------
    name : str
        For the results.
    frequent : float
        Share of its examples that are one of a few inputs; no other input comes twice.
    several : int
        How many inputs share that part (default: 20).
    """

    name: str
    frequent: float
    several: int = 20


INPUTS = (
    Inputs("a structure that remembers inputs, none of which repeats", 0.0),
    Inputs("a structure that remembers inputs, half of which repeat", 0.5),
)
"""What every rule goes through."""


def false_structures(
    recipe: PosteriorSplitRecipe,
    inputs: Inputs,
    episodes: int,
    *,
    seed: int | tuple[int, ...],
) -> npt.NDArray[np.bool_]:
    """Return in which episodes the certificate of such a structure was false.

    It is right on the inputs that `recipe.choosing` lets it read, and elsewhere wrong a little
    more often than two errors certify. Of several finalists each errs apart from the others on
    what it does not remember, and the one with the fewest errors is certified.

    Parameters
    ----------
    recipe : PosteriorSplitRecipe
        The recipe that certifies.
    inputs : Inputs
        Which inputs the client has.
    episodes : int
        How many samples, E.
    seed : int or tuple of int
        Draws them.

    Returns
    -------
    numpy.ndarray
        Bool, shape ``(E,)``.
    """
    rng = np.random.default_rng(seed)
    elsewhere = hardest(recipe, 2)
    read = np.zeros(SIZE, dtype=np.bool_)
    read[recipe.choosing(SIZE).as_slice()] = True
    shape = (episodes, SIZE)
    frequent = rng.random(shape) < inputs.frequent
    which = np.where(frequent, rng.integers(0, inputs.several, shape), -1)
    known = np.stack(
        [((which == each) & read).any(axis=1) for each in range(inputs.several)], axis=1
    )
    rows = np.arange(episodes)[:, None]
    remembered = read | (frequent & known[rows, np.maximum(which, 0)])
    erring = rng.random((recipe.finalists, *shape)) < elsewhere
    # Of a fresh example: it is remembered if it is one of the frequent inputs that were read.
    risks = elsewhere * (1 - inputs.frequent * known.mean(axis=1))
    span = recipe.certifying(SIZE)
    wrong = (~remembered & erring)[:, :, span.as_slice()]
    errors = wrong.sum(axis=2).min(axis=0)
    bounds = np.array([recipe.bound(k, span.size) for k in range(span.size + 1)])
    return np.asarray(risks > bounds[errors])


def rows(episodes: int, *, seed: int, delta: float) -> Iterator[dict[str, Any]]:
    """Yield what the benchmark of coverage says of each of `INPUTS`.

    Parameters
    ----------
    episodes : int
        How many samples.
    seed : int
        Draws them.
    delta : float
        Of the recipe.

    Yields
    ------
    dict
        As of `fedcert.simulations.benchmarks.coverage.coverage`.
    """
    recipe = PosteriorSplitRecipe(candidates=1, delta=delta, refinement="learned")
    for number, inputs in enumerate(INPUTS):
        false = false_structures(recipe, inputs, episodes, seed=(seed, 2000 + number))
        yield {
            "recipe": f"{recipe.kind} (refinement = learned)",
            "case": inputs.name,
            "episodes": episodes,
            "violations": int(false.sum()),
            "delta": delta,
        }
