"""How often certificates and watches are false where inputs repeat, or cannot be read.

`fedcert.simulations.benchmarks.episodes` plays recipes on plain samples. Here the client's
distribution has what real ones have: inputs that repeat, and rows that cannot be read. What is
played out is the *handling* of the sample. One way is honest: every observation counts. The
others are what tools and people do to samples, and each changes the distribution that the
certificate then speaks about.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from fedcert.certificates import SplitRecipe, UnionRecipe, binomial_upper_bound, budget_of
from fedcert.certificates.monitoring import RiskWatch
from fedcert.simulations.benchmarks.episodes import SIZE, hardest

__all__ = ["HANDLINGS", "WORLDS", "Handling", "World", "false_alarms", "false_certificates"]

Handling = Literal[
    "every observation counts",
    "what cannot be read is removed",
    "repeated inputs are removed",
    "inputs of an earlier sample are removed",
    "each row is copied four times",
]
HANDLINGS: tuple[Handling, ...] = get_args(Handling)
"""The first one is what fedcert does; it refuses or counts where the others change a sample."""

RARE, UNREADABLE = -1, -2
"""In the place of the number of a frequent input."""

_BATCH = 1_000
_COPIES = 4

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class World:
    """A client's distribution.

    Parameters
    ----------
    name : str
        For the results.
    frequent : float
        Share of its examples that are one of a few inputs.
    inputs : int
        How many inputs share that part (default: 20).
    wrong : int
        How many of them every candidate gets wrong; the others it gets right (default: 0).
    unreadable : float
        Share that cannot be read: an error for everybody (default: 0).
    """

    name: str
    frequent: float
    inputs: int = 20
    wrong: int = 0
    unreadable: float = 0.0

    @property
    def surely_wrong(self) -> float:
        """Share of the examples that are errors for every candidate."""
        return self.unreadable + self.frequent * self.wrong / self.inputs

    @property
    def rare(self) -> float:
        """Share of the examples that are readable and not frequent."""
        return 1 - self.frequent - self.unreadable

    def observed(
        self, episodes: int, count: int, rng: np.random.Generator
    ) -> tuple[IntArray, BoolArray]:
        """Draw which frequent input each example is and which is surely wrong.

        Parameters
        ----------
        episodes : int
            How many samples, E.
        count : int
            Examples in each, n.
        rng : np.random.Generator
            Draws them.

        Returns
        -------
        tuple
            Which frequent input each example is, and which examples are surely wrong, both of
            shape ``(E, n)``.
        """
        drawn = rng.random((episodes, count))
        atoms = np.where(drawn < self.frequent, rng.integers(0, self.inputs, drawn.shape), -1)
        atoms = np.where(drawn >= 1 - self.unreadable, UNREADABLE, atoms)
        return atoms, (atoms == UNREADABLE) | ((atoms >= 0) & (atoms < self.wrong))


WORLDS = (
    World("half of the inputs are frequent", 0.5),
    World("two frequent inputs are wrong", 0.2, inputs=2, wrong=2),
    World("a tenth cannot be read", 0.0, unreadable=0.1),
    World("frequent inputs are wrong, a tenth cannot be read", 0.1, 2, 2, unreadable=0.1),
)
"""What every way of handling goes through."""


def false_certificates(
    recipe: UnionRecipe | SplitRecipe,
    world: World,
    handling: Handling,
    episodes: int,
    *,
    seed: int | tuple[int, ...],
) -> BoolArray:
    """Return in which episodes a certificate was false, shape (episodes,).

    All candidates have the same risk, just above what two errors certify (or what the world
    allows), and err independently on rare inputs.

    Parameters
    ----------
    recipe : UnionRecipe or SplitRecipe
        The recipe that certifies.
    world : World
        What is drawn.
    handling : Handling
        What is done to the sample first.
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
    risk = min(max(hardest(recipe, 2), world.surely_wrong), world.surely_wrong + world.rare)
    parts = [
        _false(recipe, world, handling, risk, min(_BATCH, episodes - start), rng)
        for start in range(0, episodes, _BATCH)
    ]
    return np.concatenate(parts)


def _false(
    recipe: UnionRecipe | SplitRecipe,
    world: World,
    handling: Handling,
    risk: float,
    episodes: int,
    rng: np.random.Generator,
) -> BoolArray:
    atoms, surely = world.observed(episodes, SIZE, rng)
    draws = rng.random((episodes, recipe.candidates, SIZE))
    wrong: BoolArray = draws < (risk - world.surely_wrong) / world.rare
    wrong = np.where((atoms == RARE)[:, None], wrong, surely[:, None])
    if handling == "each row is copied four times":
        # Copies stand anywhere: the order is drawn.
        wrong = np.tile(wrong[:, :, : SIZE // _COPIES], _COPIES)[:, :, rng.permutation(SIZE)]
    kept = _kept(handling, world, atoms, rng)
    choosing, certifying = recipe.choosing(SIZE).as_slice(), recipe.certifying(SIZE).as_slice()
    counted = wrong & kept[:, None]
    best = counted[:, :, choosing].sum(axis=2).argmin(axis=1)
    errors = counted[np.arange(episodes), best][:, certifying].sum(axis=1)
    false: BoolArray = risk > _bounds(recipe, errors, kept[:, certifying].sum(axis=1))
    return false


def _kept(
    handling: Handling, world: World, atoms: IntArray, rng: np.random.Generator
) -> BoolArray:
    kept: BoolArray = np.ones(atoms.shape, dtype=np.bool_)
    if handling == "what cannot be read is removed":
        kept &= atoms != UNREADABLE
    elif handling == "repeated inputs are removed":
        kept &= first_occurrences(atoms)
    elif handling == "inputs of an earlier sample are removed":
        earlier, _ = world.observed(len(atoms), SIZE, rng)
        known = (earlier[:, :, None] == np.arange(world.inputs)).any(axis=1)
        kept &= ~np.take_along_axis(known, np.maximum(atoms, 0), axis=1) | (atoms < 0)
    return kept


def first_occurrences(atoms: IntArray) -> BoolArray:
    """Say which examples are the first of their input, or of no frequent input."""
    kept: BoolArray = atoms < 0
    for atom in range(int(atoms.max(initial=-1)) + 1):
        here = atoms == atom
        kept |= here & (here.cumsum(axis=1) == 1)
    return kept


def _bounds(
    recipe: UnionRecipe | SplitRecipe, errors: IntArray, trials: IntArray
) -> npt.NDArray[np.float64]:
    budget = budget_of(recipe.delta, recipe.weight())
    pairs, index = np.unique(np.stack([errors, trials]), axis=1, return_inverse=True)
    table = [
        binomial_upper_bound(int(k), int(m), budget) if m else 1.0 for k, m in pairs.T.tolist()
    ]
    return np.array(table)[index.ravel()]


def false_alarms(
    world: World,
    *,
    distinct: bool,
    episodes: int,
    seed: int | tuple[int, ...],
    alpha: float = 0.05,
    rare_risk: float = 0.4,
    bound: float | None = None,
    length: int = 200,
) -> BoolArray:
    """Return in which streams of examples a watch raised an alarm, shape (episodes,).

    Parameters
    ----------
    world : World
        What is drawn; the certificate is true if `bound` is not below its risk.
    distinct : bool
        Count each input once, as a tool that removes repeats would; else every observation.
    episodes : int
        How many streams.
    seed : int
        Draws the episodes.
    alpha : float (default: 0.05)
        The watch's.
    rare_risk : float (default: 0.4)
        Share of the rare inputs that are wrong.
    bound : float, optional
        The certified risk; by default the true one.
    length : int (default: 200)
        Examples in a stream.

    Returns
    -------
    numpy.ndarray
        Bool, shape ``(episodes,)``.
    """
    rng = np.random.default_rng(seed)
    atoms, surely = world.observed(episodes, length, rng)
    wrong = np.where(atoms == RARE, rng.random(atoms.shape) < rare_risk, surely)
    kept = first_occurrences(atoms) if distinct else np.ones(atoms.shape, dtype=np.bool_)
    true = world.surely_wrong + world.rare * rare_risk
    wealth = _log_wealth(true if bound is None else bound, length)
    errors, trials = (wrong & kept).cumsum(axis=1), kept.cumsum(axis=1)
    reached: BoolArray = (wealth[errors, trials] >= -math.log(alpha)).any(axis=1)
    return reached


@lru_cache(maxsize=8)
def _log_wealth(bound: float, length: int) -> npt.NDArray[np.float64]:
    """Tabulate a watch's wealth by errors and trials: it depends on nothing else."""
    table = np.zeros((length + 1, length + 1))
    for trials in range(1, length + 1):
        for errors in range(trials + 1):
            watch = RiskWatch(bound=bound, alpha=0.5, errors=errors, trials=trials)
            table[errors, trials] = watch.log_wealth
    return table


def rows(
    episodes: int, *, seed: int, delta: float, candidates: int
) -> Iterator[dict[str, Any]]:
    """Play the honest handling in every world, as rows of the coverage table.

    Parameters
    ----------
    episodes : int
        How often each world is played.
    seed : int
        Draws the samples.
    delta : float
        Probability with which a certificate may be false.
    candidates : int
        M of each recipe.

    Yields
    ------
    dict
        A row of the table, a JSON object.
    """
    recipes = [kind(candidates=candidates, delta=delta) for kind in (UnionRecipe, SplitRecipe)]
    for number, world in enumerate(WORLDS):
        for recipe in recipes:
            false = false_certificates(
                recipe, world, HANDLINGS[0], episodes, seed=(seed, number)
            )
            yield _row(recipe.kind, world, false, delta)
        alarms = false_alarms(
            world, distinct=False, episodes=episodes, seed=(seed, number), alpha=delta
        )
        yield _row("watch", world, alarms, delta)


def _row(recipe: str, world: World, violated: BoolArray, delta: float) -> dict[str, Any]:
    return {
        "recipe": recipe,
        "case": world.name,
        "episodes": len(violated),
        "violations": int(violated.sum()),
        "delta": delta,
    }
