"""Samples that were cleaned or copied first, and structures read off certifying inputs."""

from __future__ import annotations

from fedcert.certificates import PosteriorSplitRecipe, SplitRecipe
from fedcert.simulations.benchmarks.conditioning import INPUTS, Inputs, false_structures
from fedcert.simulations.benchmarks.mutants.base import DELTA, Mutant, Seed
from fedcert.simulations.benchmarks.mutants.by_recipes import RefinedOnAll
from fedcert.simulations.benchmarks.sampling import (
    HANDLINGS,
    WORLDS,
    Handling,
    World,
    false_alarms,
    false_certificates,
)

__all__ = ["MUTANTS"]

_SPLIT = SplitRecipe(candidates=20, delta=DELTA)
_HONEST, _UNREADABLE, _REPEATED, _SPENT, _COPIED = HANDLINGS
_FREQUENT, _WRONG, _BROKEN, _BOTH = WORLDS


def _handled(world: World, handling: Handling) -> Mutant:
    def play(handling: Handling, episodes: int, seed: Seed) -> int:
        return int(false_certificates(_SPLIT, world, handling, episodes, seed=seed).sum())

    return Mutant(
        name=f"{handling}, {world.name}",
        breaks=f"{handling[0].upper()}{handling[1:]}: {world.name}",
        of="sample",
        page="certificates",
        play=lambda episodes, seed: play(handling, episodes, seed),
        honest=lambda episodes, seed: play(_HONEST, episodes, seed),
    )


def _structure(inputs: Inputs, finalists: int) -> Mutant:
    def play(kind: type[PosteriorSplitRecipe], episodes: int, seed: Seed) -> int:
        recipe = kind(
            candidates=finalists, finalists=finalists, delta=DELTA, refinement="learned"
        )
        return int(false_structures(recipe, inputs, episodes, seed=seed).sum())

    return Mutant(
        name=f"StructureFromCertifying-{finalists}, {inputs.frequent}",
        breaks=f"{inputs.name[0].upper()}{inputs.name[1:]}, is read off certifying inputs too",
        of=f"learned finalists, {finalists}",
        page="certificates",
        play=lambda episodes, seed: play(RefinedOnAll, episodes, seed),
        honest=lambda episodes, seed: play(PosteriorSplitRecipe, episodes, seed),
    )


def _watch(world: World) -> Mutant:
    def play(distinct: bool, episodes: int, seed: Seed) -> int:
        return int(false_alarms(world, distinct=distinct, episodes=episodes, seed=seed).sum())

    return Mutant(
        name="WatchOfDistinctInputs",
        breaks=f"Each input is watched once: {world.name}",
        of="watch",
        page="certificates",
        play=lambda episodes, seed: play(True, episodes, seed),
        honest=lambda episodes, seed: play(False, episodes, seed),
    )


MUTANTS = (
    _handled(_BROKEN, _UNREADABLE),
    _handled(_BOTH, _UNREADABLE),
    _handled(_WRONG, _REPEATED),
    _handled(_WRONG, _SPENT),
    _handled(_BOTH, _SPENT),
    _handled(_FREQUENT, _COPIED),
    _handled(_BROKEN, _COPIED),
    *(_structure(inputs, finalists) for inputs in INPUTS for finalists in (1, 4)),
    _watch(_FREQUENT),
)
