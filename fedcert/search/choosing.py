"""Choosing the adapter to certify, as the recipe says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from fedcert.certificates import HybridRecipe, PosteriorSplitRecipe, Recipe, WeightedUnionRecipe
from fedcert.certificates.counts import Counts
from fedcert.certificates.recipes import FirstStage
from fedcert.data.examples import Examples
from fedcert.priors.base import FloatArray, Prior
from fedcert.search.drawing import NO_CONSTANTS, draw
from fedcert.search.refinement import refine
from fedcert.search.scores import Scorer
from fedcert.search.search import search

__all__ = ["CHUNK", "Chosen", "choose"]

CHUNK = 1024
"""Candidates drawn at a time."""


@dataclass(frozen=True)
class Chosen:
    """What a recipe hands to certification.

    Attributes
    ----------
    index : int
        Number of the candidate, or of the finalist.
    vector : numpy.ndarray
        Float64, shape ``(d,)``.
    first_stage : FirstStage or None
        What the weight follows from, for recipes that weight by the choosing examples.
    """

    index: int
    vector: FloatArray
    first_stage: FirstStage | None = None


def choose(
    recipe: Recipe,
    prior: Prior,
    scorer: Scorer,
    ordered: Examples,
    *,
    seed: str,
    constants: FloatArray = NO_CONSTANTS,
    chunk: int = CHUNK,
    on_scored: Callable[[int], None] = lambda _count: None,
) -> Chosen:
    """Choose an adapter by a recipe.

    Parameters
    ----------
    recipe : Recipe
        Says which examples may do what. Its choosing examples choose or refine; certifying
        examples are looked at only by recipes that pay for all they compare there.
    prior : Prior
        What candidates are drawn from.
    scorer : Scorer
        Counts errors.
    ordered : Examples
        The support set in the order in which the seed spends it.
    seed : str
        Of the candidates.
    constants : numpy.ndarray, optional
        Adapters that predict one label each, for recipes that have such candidates.
    chunk : int (default: 1024)
        Candidates drawn at a time, where the recipe compares many; the choice is the same.
    on_scored : callable
        Told how many more candidates have been scored, now and then.
    """
    choosing = ordered.take(recipe.choosing(len(ordered)).as_slice())
    if isinstance(recipe, PosteriorSplitRecipe):
        finalists = refine(recipe, prior, scorer, choosing, seed=seed, on_scored=on_scored)
        if len(finalists) == 1:
            return Chosen(0, finalists[0])
        certifying = ordered.take(recipe.certifying(len(ordered)).as_slice())
        index = scorer.score(finalists, certifying).best()[0]
        return Chosen(index, finalists[index])
    if isinstance(recipe, HybridRecipe | WeightedUnionRecipe):
        return _by_bound(
            recipe, partial(draw, recipe, prior, constants, seed), scorer, ordered,
            chunk=chunk, on_scored=on_scored,
        )  # fmt: skip
    winner = search(
        prior,
        scorer,
        choosing,
        seed=seed,
        candidates=recipe.candidates,
        chunk=chunk,
        on_scored=on_scored,
    )
    return Chosen(winner.index, winner.vector)


def _by_bound(
    recipe: HybridRecipe | WeightedUnionRecipe,
    drawn: Callable[..., FloatArray],
    scorer: Scorer,
    ordered: Examples,
    *,
    chunk: int,
    on_scored: Callable[[int], None],
) -> Chosen:
    """Count the errors of all candidates, and choose the lowest of their own bounds."""
    choosing, certifying = recipe.choosing(len(ordered)), recipe.certifying(len(ordered))
    parts = []
    for first in range(0, recipe.candidates, chunk):
        count = min(chunk, recipe.candidates - first)
        scores = scorer.score(drawn(start=first, count=count), ordered)
        parts.append(
            (
                scores.wrong[:, choosing.as_slice()].sum(axis=1),
                scores.wrong[:, certifying.as_slice()].sum(axis=1),
                scores.losses[:, choosing.as_slice()].sum(axis=1),
            )
        )
        on_scored(count)
    chosen, certified, losses = (
        np.concatenate(columns) for columns in zip(*parts, strict=True)
    )
    counts = Counts(
        choosing=chosen[None],
        certifying=certified[None],
        losses=losses[None],
        chosen_on=choosing.size,
        certified_on=certifying.size,
    )
    selected = recipe.select(counts).index
    assert selected is not None
    index = int(selected[0])
    stage = (
        recipe.first_stage(chosen, len(ordered), index)
        if isinstance(recipe, HybridRecipe)
        else None
    )
    return Chosen(index, drawn(start=index, count=1)[0], stage)
