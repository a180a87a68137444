"""How often certificates are false, where every risk is known exactly.

`fedcert.simulations.benchmarks.episodes` plays one recipe out; here are all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, product
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
from fedcert.certificates.attempts import FIRST_SHARE
from fedcert.planning import menu
from fedcert.simulations.benchmarks import conditioning, sampling
from fedcert.simulations.benchmarks.episodes import CASES, SIZE, false_certificates
from fedcert.simulations.benchmarks.recipes import (
    CompressionRecipe,
    GibbsRecipe,
    KnownBestRecipe,
    VoteRecipe,
)

__all__ = ["EPISODES", "RECIPES", "coverage"]

EPISODES = 10_000
DELTA = 0.05
_TERMS: dict[str, Any] = {"candidates": 20, "delta": DELTA, "first_share": FIRST_SHARE}
_ALONE = _TERMS | {"candidates": 1}


def _planned() -> Iterator[Recipe]:
    """Yield what a planner tries, with few candidates."""
    menus = [
        menu(**_TERMS, constants=10, local_head=True, posterior=posterior)
        for posterior in ("mean", "mode")
    ]
    for recipe in dict.fromkeys(chain(*menus)):
        # Whatever makes finalists is played as the best fit of all candidates, however few of
        # them it draws itself.
        yield replace(recipe, candidates=20) if recipe.refines else recipe


_BY_HAND: tuple[Recipe, ...] = (
    DefaultRecipe(**_ALONE),
    DefaultRecipe(**_ALONE, randomized=True),
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
    MixedUnionRecipe(**_TERMS, constants=2, randomized=True),
    PosteriorSplitRecipe(**_TERMS, finalists=3, randomized=True),
    UnionRecipe(**_TERMS | {"candidates": 100}),
    GibbsRecipe(**_TERMS),
    VoteRecipe(**_TERMS | {"candidates": 5}),
    CompressionRecipe(**_ALONE, dimension=4, bits_per_coordinate=1),
    KnownBestRecipe(**_TERMS),
)


def _label(recipe: Recipe) -> str:
    shown = {
        "choose_fraction", "finalists", "refinement", "beta", "constants", "share", "randomized"
    }  # fmt: skip
    arguments = {k: v for k, v in recipe.to_config().items() if k in shown}
    # Rows from before there was another one say nothing of it.
    arguments = {k: v for k, v in arguments.items() if v != "posterior_mean"}
    if recipe.kind == UnionRecipe.kind and recipe.candidates != _TERMS["candidates"]:
        arguments["candidates"] = recipe.candidates
    listed = ", ".join(f"{name} = {value}" for name, value in arguments.items())
    return f"{recipe.kind} ({listed})" if listed else recipe.kind


RECIPES = tuple({_label(recipe): recipe for recipe in (*_planned(), *_BY_HAND)}.values())
"""Every kind, and every recipe that a planner tries, with few candidates: then the union over
them is nearly tight."""

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
