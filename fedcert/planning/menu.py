"""The recipes that a planner chooses among."""

from __future__ import annotations

from typing import Any, Literal

from fedcert.adapters.finetune import FinetuneSettings
from fedcert.certificates import (
    DefaultRecipe,
    HybridRecipe,
    MixedUnionRecipe,
    PosteriorSplitRecipe,
    Promise,
    Recipe,
    SwapRecipe,
    UnionRecipe,
)
from fedcert.certificates.attempts import FIRST_SHARE

__all__ = ["MODE_STEPS", "Posterior", "menu", "recipe_name", "worth_trying"]

Posterior = Literal["mean", "mode"]

# Shares of the support set that choose, or give weights.
_HYBRIDS = (0.25, 0.5)
_POSTERIOR_SPLITS = (0.25, 0.375, 0.5)
# What is trained from the default adapter, on which shares.
_TUNED = (0.25, 0.5)
_TUNED_HEADS = (0.25, 0.375, 0.5)
# Unions of fewer candidates, which cost less where one of them is about as good. A union of one
# draw is left out: the default is one of the center.
_SMALL_UNIONS = (10, 100)
# Shares of delta for constant predictors.
_MIXED = (0.5, 0.9)
# With fewer examples than these, two chances at half of delta are worth less than one.
_FEWEST_SWAPPED = 64
MODE_STEPS = 100
"""Steps of Adam to a posterior's mode; fewer leave what many examples say half learned."""
# More examples than these teach a posterior mean little, and cost much.
_MOST_REFINED_ON = 64


def menu(
    *,
    candidates: int,
    delta: float,
    constants: int = 0,
    local_head: bool = False,
    posterior: Posterior | None = "mean",
    training: FinetuneSettings = FinetuneSettings(),  # noqa: B008
    randomized: bool = False,
    first_share: float = FIRST_SHARE,
    promises: tuple[Promise[Any], ...] = (),
) -> tuple[Recipe, ...]:
    """Return every recipe that a planner tries.

    There is no plain split among them: a hybrid of the same fraction gives the candidates that
    choosing leaves behind little weight, and lets the others choose once more.

    Parameters
    ----------
    candidates : int
        M of each recipe that draws candidates, but for unions of fewer.
    delta : float
        Delta of each recipe.
    constants : int (default: 0)
        K, how many constant predictors there are; 0 leaves out the recipes that need them.
    local_head : bool (default: False)
        Whether a head can be trained alone, on the center or on the base model
        (`fedcert.search.learning.has_linear_head`).
    posterior : {"mean", "mode"} or None (default: "mean")
        What of posteriors is tried: means, each of which takes thousands of candidates, or
        modes, which gradients find; None for neither.
    training : FinetuneSettings
        How upstream clients train. What suits the base model there suits it here, so what is
        fine-tuned from the center has the same steps, learning rate, and weight decay.
    randomized : bool (default: False)
        Whether their bounds take a number from the seed.
    first_share : float
        Share of delta of a client's first attempt (default: 0.99).
    promises : tuple of Promise
        What their certificates say beside the bound (default: none).

    Returns
    -------
    tuple of Recipe
        Recipes that are worth planning, the union first.
    """
    terms: dict[str, Any] = {
        "candidates": candidates,
        "delta": delta,
        "first_share": first_share,
        "randomized": randomized,
        "promises": promises,
    }
    return (
        UnionRecipe(**terms),
        *(HybridRecipe(**terms, choose_fraction=fraction) for fraction in _HYBRIDS),
        SwapRecipe(**terms),
        DefaultRecipe(**{**terms, "candidates": 1}),
        *(
            UnionRecipe(**{**terms, "candidates": count})
            for count in _SMALL_UNIONS
            if count < candidates
        ),
        *_trained(terms, training, local_head=local_head, posterior=posterior),
        *_posteriors(terms, posterior),
        *(
            MixedUnionRecipe(**terms, constants=constants, share=share)
            for share in _MIXED
            if 1 < constants < candidates
        ),
    )


def _trained(
    terms: dict[str, Any],
    training: FinetuneSettings,
    *,
    local_head: bool,
    posterior: Posterior | None,
) -> list[Recipe]:
    """Return splits whose finalists are trained: alone, where no candidate has to be drawn."""
    alone: dict[str, Any] = {**terms, "candidates": 1}
    tuning: dict[str, Any] = {
        "tuning_steps": training.steps,
        "learning_rate": training.learning_rate,
        "pull": training.weight_decay,
    }
    recipes: list[Recipe] = [
        PosteriorSplitRecipe(**alone, **tuning, refinement="finetune", choose_fraction=share)
        for share in _TUNED
        # Below the head nothing is trained upstream: it would take as long as all the rest.
        if not training.head_only
    ]
    if local_head:
        recipes += [
            PosteriorSplitRecipe(**alone, refinement="tuned_head", choose_fraction=share)
            for share in _TUNED_HEADS
        ]
        recipes.append(PosteriorSplitRecipe(**alone, refinement="local_head"))
    if terms["candidates"] > 1 and not training.head_only:
        pair: dict[str, Any] = {**terms, **tuning, "finalists": 2}
        if posterior == "mean":
            recipes.append(PosteriorSplitRecipe(**pair, refinement="posterior_mean+finetune"))
        # None of these needs a candidate to be drawn, but finalists are not to outnumber them.
        pair["candidates"] = 2
        if posterior == "mode":
            recipes.append(PosteriorSplitRecipe(**pair, refinement="posterior_mode+finetune"))
        if local_head:
            recipes.append(PosteriorSplitRecipe(**pair, refinement="finetune+tuned_head"))
    return recipes


def _posteriors(terms: dict[str, Any], posterior: Posterior | None) -> list[Recipe]:
    """Return splits whose one finalist is the posterior's mean, or its mode."""
    if posterior is None:
        return []
    if posterior == "mode":
        # No candidate has to be drawn.
        terms = {**terms, "candidates": 1, "tuning_steps": MODE_STEPS}
    return [
        PosteriorSplitRecipe(
            **terms, refinement=f"posterior_{posterior}", choose_fraction=fraction
        )
        for fraction in _POSTERIOR_SPLITS
    ]


def worth_trying(recipe: Recipe, n: int) -> bool:
    """Return whether a planner tries a recipe at n.

    Not if it would search a posterior on too many examples, or swap parts of too few.
    """
    if recipe.kind == SwapRecipe.kind:
        return n >= _FEWEST_SWAPPED
    if not recipe.refines or "posterior_mean" not in _refinement(recipe):
        return True
    return recipe.choosing(n).size <= _MOST_REFINED_ON


def recipe_name(recipe: Recipe) -> str:
    """Return a recipe's kind or what it refines by, and its fraction or its few candidates.

    The fraction is that of the examples that choose, or of the constants.

    Examples
    --------
    >>> from fedcert.certificates import SplitRecipe
    >>> recipe_name(SplitRecipe(candidates=1000, delta=0.05, choose_fraction=0.25))
    'split 0.25'
    """
    if recipe.kind == UnionRecipe.kind and recipe.candidates in _SMALL_UNIONS:
        return f"{recipe.kind} of {recipe.candidates}"
    refinement = _refinement(recipe)
    kind = recipe.kind if refinement == "posterior_mean" else refinement
    fraction = getattr(recipe, "choose_fraction", getattr(recipe, "share", None))
    return kind if fraction is None else f"{kind} {fraction:g}"


def _refinement(recipe: Recipe) -> str:
    """Return by what a recipe refines; one of somebody's own may search for long."""
    return str(getattr(recipe, "refinement", "posterior_mean"))
