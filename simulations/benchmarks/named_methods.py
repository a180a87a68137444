"""What ``make bench-named`` compares: fedcert's recipes, and what one would do without it.

Every bound is that of a recipe of `fedcert.certificates`, and what chooses or learns is the
code that serves clients, but for the logistic regression on embeddings.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax

from fedcert.arrays import FloatArray
from fedcert.certificates import (
    DefaultRecipe,
    PosteriorSplitRecipe,
    Recipe,
    SplitRecipe,
)
from fedcert.certificates.attempts import FIRST_SHARE
from fedcert.data.examples import Examples
from fedcert.planning import recipe_name
from fedcert.randomness import derive_seed
from fedcert.search.session import SupportSession
from fedcert.simulations.benchmarks.federations import remembered
from fedcert.simulations.benchmarks.named_site import DELTA, Client, Site

__all__ = ["LIMIT", "PLANNED", "RANDOMIZED", "learned_on_all", "measured", "outcome"]

PLANNED, RANDOMIZED = "planned", "planned, randomized bound"
ZERO_SHOT = "zero-shot"
REGRESSION = "embeddings + logistic regression"
FINETUNED = "fine-tuned from the default"
# A third of the recipe's usual steps: they take most of the benchmark's time.
_FINETUNE: dict[str, Any] = {
    "refinement": "finetune",
    "tuning_steps": 20,
    "choose_fraction": 0.5,
}
# Chains that say what a posterior mean is about worth; a client's own would be longer.
_POSTERIOR: dict[str, Any] = {"chains": 8, "steps": 30, "choose_fraction": 0.5}
_POSTERIOR_SIZES = (32,)
_PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
_FOLDS = 4
_SHARES = (0.25, 0.375, 0.5)

LIMIT = ("default", REGRESSION, "head from names of the default")
"""Whose errors after learning from all n the limit is the best of."""

# The same as the planner's menu: a first attempt's share of delta.
_TERMS: dict[str, Any] = {"candidates": 1, "delta": DELTA, "first_share": FIRST_SHARE}


def measured(client: Client, *, some: bool) -> Iterator[dict[str, Any]]:
    """Yield a new client's outcomes by method and n.

    Parameters
    ----------
    client : Client
        The client.
    some : bool
        Whether it is one of those on which the methods run that take long.
    """
    site = client.site
    for n in site.cell.sizes:
        planned = site.plan.expected(n).recipe
        yield {"method": PLANNED, **outcome(client, planned, n)}
        if planned.randomizes:
            drawn = replace(planned, randomized=True)
            yield {"method": RANDOMIZED, **outcome(client, drawn, n)}
        for method, recipe in _recipes(site, n, some=some):
            yield {"method": method, **outcome(client, recipe, n)}
        if site.base.takes_labels:
            yield {"method": ZERO_SHOT, **_kept(client, n, {"method": ZERO_SHOT}, _zero_shot)}
            yield {
                "method": REGRESSION,
                **_kept(client, n, {"method": REGRESSION}, _regression),
            }


def _recipes(site: Site, n: int, *, some: bool) -> Iterator[tuple[str, Recipe]]:
    """Yield the recipes that are measured by themselves, with their names here."""
    named = {recipe_name(recipe): recipe for recipe in site.menu}
    yield "default", named["default"]
    for recipe in _heads(site, named):
        called = recipe_name(recipe)
        if some or site.base.takes_labels or called in _learners(site):
            yield _spoken(called, site), recipe
    if not some:
        return
    yield f"union of {site.cell.candidates}", named["union"]
    yield FINETUNED, PosteriorSplitRecipe(**_TERMS, **_FINETUNE)
    if n in _POSTERIOR_SIZES:
        terms = {**_TERMS, "candidates": site.cell.candidates}
        yield "posterior mean", PosteriorSplitRecipe(**terms, **_POSTERIOR)


def _heads(site: Site, named: Mapping[str, Recipe]) -> Iterator[Recipe]:
    """Yield recipes that train a head: with names both sorts at every share.

    A plan chooses its share, and is to be held against training alone at any.
    """
    shares = _SHARES if site.base.takes_labels else (0.25, 0.5)
    yield from (named[f"tuned_head {share}"] for share in shares)
    alone = named["local_head 0.5"]
    if site.base.takes_labels and isinstance(alone, PosteriorSplitRecipe):
        yield from (replace(alone, choose_fraction=share) for share in shares[:-1])
    yield alone


def _learners(site: Site) -> set[str]:
    """Return one head of each sort that learns on this encoder, whatever its share."""
    return {"local_head 0.5"} | ({"tuned_head 0.5"} if site.base.takes_labels else set())


def _spoken(name: str, site: Site) -> str:
    """Say what a trained head is: where labels have names it starts there."""
    kind, _, share = name.partition(" ")
    if not site.base.takes_labels:
        if kind != "local_head":
            return name
        return REGRESSION if share == "0.5" else f"{REGRESSION} {share}"
    start = "" if kind == "local_head" else " of the default"
    return f"head from names{start} {share}"


def outcome(client: Client, recipe: Recipe, n: int) -> dict[str, Any]:
    """Measure a recipe on a client's first n examples, or find what was measured before.

    Parameters
    ----------
    client : Client
        The client.
    recipe : Recipe
        How it spends its examples.
    n : int
        How many.

    Returns
    -------
    dict
        n, ``certificate``, ``error`` and ``seconds``.
    """
    about = client.site.recipe_identity(recipe)
    if recipe.randomized:
        about["seed"] = _seed(client, recipe, n)
    return _kept(client, n, about, partial(_outcome, recipe=recipe))


def _kept(
    client: Client, n: int, about: dict[str, Any], run: Callable[[Client, int], dict[str, Any]]
) -> dict[str, Any]:
    """Return what a method gives, from before if it was measured."""
    about = about | {"new": client.name, "n": n}
    found: dict[str, Any] = remembered(
        "named", client.site.identity(**about), partial(run, client, n)
    )
    return found


def _seed(client: Client, recipe: Recipe, n: int) -> str:
    """Return the seed of a client's candidates, and of its number if the bound takes one."""
    seed = client.site.candidate_seed
    # One number for all clients would decide on their mean.
    return derive_seed(seed, client.name, n) if recipe.randomized else seed


def _outcome(client: Client, n: int, *, recipe: Recipe) -> dict[str, Any]:
    _encode(client, n)
    started = time.process_time()
    bound, vector = certified(client, recipe, client.first(n))
    seconds = time.process_time() - started
    return _row(n, bound, client.error(vector), seconds)


def certified(client: Client, recipe: Recipe, examples: Examples) -> tuple[float, FloatArray]:
    """Let a recipe choose and certify as it does for a client.

    Parameters
    ----------
    client : Client
        The client.
    recipe : Recipe
        How it spends its examples.
    examples : Examples
        Its examples, in the order in which they are spent.

    Returns
    -------
    tuple
        The bound, and the adapter that it is for.
    """
    seed = _seed(client, recipe, len(examples))
    session = SupportSession(recipe, client.site.prior, client.scorer, examples, seed=seed)
    chosen = recipe.choose(session)
    choice = replace(chosen.choice, number=session.number)
    span = recipe.certifies_on(choice, len(examples))
    wrong, _ = session.score(chosen.vector[None], span)
    return recipe.bound(int(wrong.sum()), span.size, choice), chosen.vector


def _zero_shot(client: Client, n: int) -> dict[str, Any]:
    """Certify names and frozen model as they are: the adapter is zero, and none chose it."""
    _encode(client, n)
    zero, recipe = np.zeros(client.site.space.dimension), DefaultRecipe(**_TERMS)
    started = time.process_time()
    errors = int(client.scorer.score(zero[None], client.first(n)).wrong.sum())
    bound = recipe.bound(errors, n)
    return _row(n, bound, client.error(zero), time.process_time() - started)


def _regression(client: Client, n: int) -> dict[str, Any]:
    """Learn on one half from embeddings, and certify on the other."""
    recipe, examples = SplitRecipe(**_TERMS, choose_fraction=0.5), client.first(n)
    started = time.process_time()
    features, cut = client.embeddings(examples), recipe.choosing(n).size
    classes = len(client.site.scenario.labels_of(client.name))
    weights = _fitted(features[:cut], examples.labels[:cut], classes)
    errors = _errors(weights, features[cut:], examples.labels[cut:])
    bound = recipe.bound(int(errors.sum()), n - cut)
    seconds = time.process_time() - started
    return _row(n, bound, _test_error(client, weights), seconds)


def learned_on_all(client: Client, n: int) -> dict[str, float]:
    """Return true errors of what learns from all n and certifies nothing, by method."""
    found: dict[str, float] = remembered(
        "named",
        client.site.identity(all=client.name, n=n, prior=client.site.prior.digest, of=LIMIT),
        partial(_learned_on_all, client, n),
    )
    return found


def _learned_on_all(client: Client, n: int) -> dict[str, float]:
    site, examples = client.site, client.first(n)
    errors = {"default": client.error(site.prior.center())}
    if site.base.takes_labels:
        classes = len(site.scenario.labels_of(client.name))
        weights = _fitted(client.embeddings(examples), examples.labels, classes)
        errors[REGRESSION] = _test_error(client, weights)
    for recipe in site.menu:
        name = recipe_name(recipe)
        if name not in _learners(site):
            continue
        session = SupportSession(
            recipe, site.prior, client.scorer, examples, seed=site.candidate_seed
        )
        (vector,) = recipe.refine(session)
        errors[_spoken(name, site).removesuffix(" 0.5")] = client.error(vector)
    return errors


def _row(n: int, bound: float, error: float, seconds: float) -> dict[str, Any]:
    return {"n": n, "certificate": bound, "error": error, "seconds": seconds}


def _encode(client: Client, n: int) -> None:
    """Have the frozen layers run before the clock starts."""
    zero = np.zeros((1, client.site.space.dimension))
    client.scorer.score(zero, client.first(n))


# --- logistic regression on the embeddings of the frozen model ---


def _test_error(client: Client, weights: FloatArray) -> float:
    return float(_errors(weights, client.test_embeddings, client.tests.labels).mean())


def _errors(
    weights: FloatArray, features: FloatArray, labels: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    predicted = (_with_one(features) @ weights.T).argmax(axis=1)
    return np.asarray(predicted != labels)


def _fitted(features: FloatArray, labels: npt.NDArray[np.int64], classes: int) -> FloatArray:
    """Return weights ``(K, width + 1)``; held-out folds choose the penalty."""
    inputs = _with_one(features)
    left, values, right = np.linalg.svd(inputs, full_matrices=False)
    rotated, wanted = left * values, np.eye(classes)[labels]
    folds = np.arange(len(labels)) % min(_FOLDS, len(labels))

    def held_out(penalty: float) -> tuple[float, float]:
        wrong = loss = 0.0
        for fold in range(folds.max() + 1):
            rows = folds == fold
            logits = rotated[rows] @ _descended(rotated[~rows], wanted[~rows], penalty).T
            wrong += float((logits.argmax(axis=1) != labels[rows]).sum())
            loss -= float((wanted[rows] * log_softmax(logits, axis=1)).sum())
        return wrong, loss

    best = min(_PENALTIES, key=held_out) if len(labels) > 1 else _PENALTIES[0]
    return np.asarray(_descended(rotated, wanted, best) @ right)


def _descended(features: FloatArray, wanted: FloatArray, penalty: float) -> FloatArray:
    shape = (wanted.shape[1], features.shape[1])

    def objective(flat: FloatArray) -> tuple[float, FloatArray]:
        weights = flat.reshape(shape)
        logs = log_softmax(features @ weights.T, axis=1)
        slope = (np.exp(logs) - wanted).T @ features / len(features) + penalty * weights
        value = -(wanted * logs).sum() / len(features) + penalty / 2 * (flat**2).sum()
        return float(value), slope.ravel()

    found = minimize(objective, np.zeros(shape[0] * shape[1]), jac=True, method="L-BFGS-B")
    return np.asarray(found.x.reshape(shape))


def _with_one(features: FloatArray) -> FloatArray:
    return np.column_stack([features, np.ones(len(features))])
