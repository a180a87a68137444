"""What a mutant is: a certificate broken in one way, played beside the honest one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

from fedcert.certificates import Promise, Recipe
from fedcert.simulations.benchmarks.episodes import Case, false_certificates
from fedcert.simulations.benchmarks.promise_episodes import World, false_promises

__all__ = ["DELTA", "Mutant", "Page", "Play", "broken_promise", "broken_recipe"]

DELTA = 0.05

Seed = int | tuple[int, ...]
Play = Callable[[int, Seed], int]
"""From a number of episodes and a seed to how many of them end with a false statement."""
Page = Literal["certificates", "promises"]


@dataclass(frozen=True)
class Mutant:
    """One way to break a certificate, which playing it out has to catch.

    Parameters
    ----------
    name : str
        What tests call it.
    breaks : str
        What it does, in words.
    of : str
        Kind of the recipe, promise, or handling that it breaks.
    page : str
        The page that shows it.
    play : callable
        Counts its false statements.
    honest : callable
        Counts those of what it was made from, in the same world.
    delta : float
        Probability with which a statement may be false (default: 0.05).
    """

    name: str
    breaks: str
    of: str
    page: Page
    play: Play
    honest: Play
    delta: float = DELTA


def broken_recipe(mutant: Recipe, case: Case) -> Mutant:
    """Return a recipe as a mutant of the class that it derives from.

    What it breaks is the first line of its docstring.

    Parameters
    ----------
    mutant : Recipe
        Its class changes one thing of its parent.
    case : Case
        Where both are played, at the risks that the mutant has there.
    """
    world = Case(
        case.name,
        lambda _recipe, count: case.risks(mutant, count),
        shared=case.shared,
        attempts=case.attempts,
    )

    def play(recipe: Recipe, episodes: int, seed: Seed) -> int:
        return int(false_certificates(recipe, world, episodes, seed=seed).sum())

    honest = _honest(mutant)
    return Mutant(
        name=f"{type(mutant).__name__}-{mutant.candidates}",
        breaks=_words(mutant),
        of=honest.kind,
        page="certificates",
        play=lambda episodes, seed: play(mutant, episodes, seed),
        honest=lambda episodes, seed: play(honest, episodes, seed),
        delta=mutant.delta,
    )


def broken_promise(recipe: Recipe, mutant: Promise[Any], world: World) -> Mutant:
    """Return a promise as a mutant of the class that it derives from.

    Parameters
    ----------
    recipe : Recipe
        Whose promise it is.
    mutant : Promise
        Its class changes one thing of its parent.
    world : World
        Where both are played.

    Returns
    -------
    Mutant
        Shown on the page of promises.
    """

    def play(promise: Promise[Any], episodes: int, seed: Seed) -> int:
        return false_promises(recipe, promise, world, episodes, seed=seed)

    honest = _honest(mutant)
    return Mutant(
        name=type(mutant).__name__,
        breaks=_words(mutant),
        of=honest.kind,
        page="promises",
        play=lambda episodes, seed: play(mutant, episodes, seed),
        honest=lambda episodes, seed: play(honest, episodes, seed),
    )


def _honest(mutant: Any) -> Any:
    parent = type(mutant).__mro__[1]
    return parent(**{field.name: getattr(mutant, field.name) for field in fields(mutant)})


def _words(mutant: object) -> str:
    return (type(mutant).__doc__ or "").strip().splitlines()[0].rstrip(".")
