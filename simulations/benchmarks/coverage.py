"""How often certificates are false, where every risk is known exactly.

`fedcert.simulations.benchmarks.episodes` plays one recipe out; here are all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

from fedcert.certificates import (
    DefaultRecipe,
    HybridRecipe,
    MixedUnionRecipe,
    PosteriorSplitRecipe,
    Recipe,
    SplitRecipe,
    SteelRecipe,
    SwapRecipe,
    UnionRecipe,
    WeightedUnionRecipe,
)
from fedcert.simulations.benchmarks import conditioning, sampling
from fedcert.simulations.benchmarks.episodes import CASES, SIZE, false_certificates
from fedcert.simulations.benchmarks.recipes import (
    CompressionRecipe,
    GibbsRecipe,
    KnownBestRecipe,
    VoteRecipe,
)

__all__ = ["RECIPES", "coverage"]

EPISODES = 10_000
DELTA = 0.05
_TERMS: dict[str, Any] = {"candidates": 20, "delta": DELTA}

RECIPES: tuple[Recipe, ...] = (
    DefaultRecipe(candidates=1, delta=DELTA),
    DefaultRecipe(candidates=1, delta=DELTA, randomized=True),
    UnionRecipe(**_TERMS),
    WeightedUnionRecipe(**_TERMS),
    MixedUnionRecipe(**_TERMS, constants=2),
    MixedUnionRecipe(**_TERMS, constants=10, share=0.9),
    SteelRecipe(**_TERMS),
    SplitRecipe(**_TERMS),
    SwapRecipe(**_TERMS),
    SwapRecipe(**_TERMS, randomized=True),
    PosteriorSplitRecipe(**_TERMS),
    PosteriorSplitRecipe(**_TERMS, finalists=3),
    PosteriorSplitRecipe(**_TERMS, finalists=2, refinement="posterior_mean+finetune"),
    PosteriorSplitRecipe(**_TERMS, finalists=3, refinement="posterior_mean+finetune+learned"),
    PosteriorSplitRecipe(**_TERMS, finalists=4, refinement="learned"),
    PosteriorSplitRecipe(**_TERMS, finalists=4, refinement="finetune+learned"),
    HybridRecipe(**_TERMS),
    HybridRecipe(**_TERMS, beta=0.5),
    UnionRecipe(**_TERMS, randomized=True),
    SplitRecipe(**_TERMS, randomized=True),
    HybridRecipe(**_TERMS, beta=0.5, randomized=True),
    GibbsRecipe(**_TERMS),
    VoteRecipe(candidates=5, delta=DELTA),
    CompressionRecipe(candidates=1, delta=DELTA, dimension=4, bits_per_coordinate=1),
    KnownBestRecipe(**_TERMS),
)
"""Every kind, with few candidates: then the union over them is nearly tight."""

_FRACTIONS = tuple(n1 / SIZE for n1 in (1, 4, 10, 30, 36, 39))


def coverage(episodes: int = EPISODES, *, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Play every recipe in every case, and those that split also with n1 of many sizes.

    Then come the worlds of `sampling`, where inputs repeat or cannot be read, and those of
    `conditioning`, where a structure remembers the inputs that it was read off.

    Yields
    ------
    dict
        ``{"recipe", "case", "episodes", "violations", "delta"}``; `violations` should be
        what a coin that falls on its edge with probability `delta` at most would show.
    """
    plan = list(product(RECIPES, CASES))
    for fraction in _FRACTIONS:
        for kind in (SplitRecipe, PosteriorSplitRecipe, HybridRecipe):
            plan.append((kind(**_TERMS, choose_fraction=fraction), CASES[0]))
    for number, (recipe, case) in enumerate(plan):
        violated = false_certificates(recipe, case, episodes, seed=(seed, number))
        yield {
            "recipe": _label(recipe),
            "case": case.name,
            "episodes": episodes,
            "violations": int(violated.sum()),
            "delta": recipe.delta,
        }
    yield from sampling.rows(episodes, seed=seed, delta=DELTA, candidates=20)
    yield from conditioning.rows(episodes, seed=seed, delta=DELTA)


def _label(recipe: Recipe) -> str:
    shown = {"choose_fraction", "finalists", "refinement", "beta", "randomized"}
    arguments = {k: v for k, v in recipe.to_config().items() if k in shown}
    # Rows from before there was another one say nothing of it.
    arguments = {k: v for k, v in arguments.items() if v != "posterior_mean"}
    listed = ", ".join(f"{name} = {value}" for name, value in arguments.items())
    return f"{recipe.kind} ({listed})" if listed else recipe.kind
