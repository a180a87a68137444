"""Living bounds whose start is not paid for, or whose spot checks are chosen."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import betaincc

from fedcert.certificates import WEIGHT_DENOMINATOR
from fedcert.simulations.benchmarks.living_episodes import (
    DELTA,
    LOOKS,
    WORLDS,
    World,
    false_living,
)
from fedcert.simulations.benchmarks.mutants.base import Mutant, Seed

__all__ = ["MUTANTS"]


def _one_look(world: World, errors: int, running: npt.NDArray[np.int64]) -> int:
    """Count where the exact bound of all examples so far is ever below the risk."""
    wrong = errors + running
    right = world.trials + np.arange(LOOKS + 1) - wrong
    # The exact bound at delta is below the risk where the tail at the risk is below delta.
    tails = betaincc(wrong + 1, np.maximum(right, 1), world.risk)
    return int(((tails < DELTA) & (right > 0)).any(axis=1).sum())


def _looked_at_again(
    wrong: npt.NDArray[np.bool_], rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Excuse every other wrong one."""
    return wrong & (rng.random(wrong.shape) < 0.5)


def _broken(name: str, breaks: str, world: World, **how: Any) -> Mutant:
    def play(how: dict[str, Any], episodes: int, seed: Seed) -> int:
        return false_living(world, episodes, seed=seed, **how)

    return Mutant(
        name=f"{name}-{world.candidates}",
        breaks=breaks,
        of="living",
        page="promises",
        play=partial(play, how),
        honest=partial(play, {}),
        delta=DELTA,
    )


_FIXED, _RARE, _CHOSEN, _HALF = WORLDS

MUTANTS = (
    *(
        _broken(
            "StartThatDoesNotPay",
            f"The best of {world.candidates} starts with all of the stake",
            world,
            weight=WEIGHT_DENOMINATOR,
            fresh=0.0,
        )
        for world in (_CHOSEN, _HALF)
    ),
    _broken(
        "OneLookOften",
        "An exact bound for one look is looked at after each spot check",
        _FIXED,
        ever_false=_one_look,
    ),
    _broken(
        "SpotChecksByOutcome",
        "Spot checks are chosen by their outcome: every other wrong one is left out",
        _FIXED,
        counted=_looked_at_again,
    ),
)
