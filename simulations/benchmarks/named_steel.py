"""STEEL as published in its own setting, beside SGD with a bound on its training set.

Rezk et al., arXiv 2502.06970: 5 ways, 16 shots each, so n = 80; a prior from upstream tasks,
and Hoeffding's inequality on the same 80 that choose. SGD trains on all 80; its bound pays for
each adapter that a code fixed beforehand can name. A balanced draw is no i.i.d. sample of a
client's requests, so these bounds are only what their formulas give; no certificate rests on
them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from fedcert.adapters import finetune
from fedcert.arrays import FloatArray
from fedcert.certificates import DefaultRecipe, Recipe
from fedcert.certificates.attempts import FIRST_SHARE
from fedcert.data.examples import Examples
from fedcert.errors import DataError
from fedcert.planning import recipe_name
from fedcert.randomness import small_seed
from fedcert.simulations.benchmarks.federations import remembered
from fedcert.simulations.benchmarks.named_methods import certified
from fedcert.simulations.benchmarks.named_site import DELTA, Client
from fedcert.simulations.benchmarks.recipes import CompressionRecipe

__all__ = ["SHOTS", "steel_rows"]

SHOTS = 16
STEEL, SGD = "STEEL", "SGD"
# SGD's code: so many bits for each coordinate, evenly from -1 to 1.
_BITS = 3


def steel_rows(client: Client) -> Iterator[dict[str, Any]]:
    """Yield a new client's outcomes on a balanced draw, by method.

    Parameters
    ----------
    client : Client
        The client.
    """
    site = client.site
    named = {recipe_name(recipe): recipe for recipe in site.menu}
    steel = Recipe.from_config(
        {"kind": "steel", "candidates": site.cell.candidates, "delta": DELTA}
    )
    default = DefaultRecipe(candidates=1, delta=DELTA, first_share=FIRST_SHARE)
    heads = {kind: recipe for kind, recipe in named.items() if kind.endswith("_head 0.5")}
    for method, recipe in {STEEL: steel, "default": default, **heads}.items():
        yield {"method": method, **_kept(client, method, recipe)}
    yield {"method": SGD, **_kept(client, SGD, None)}


def _kept(client: Client, method: str, recipe: Recipe | None) -> dict[str, Any]:
    about: dict[str, Any] = {"balanced": SHOTS, "new": client.name, "method": method}
    about |= {"bits": _BITS} if recipe is None else client.site.recipe_identity(recipe)
    found: dict[str, Any] = remembered(
        "named", client.site.identity(**about), partial(_outcome, client, recipe)
    )
    return found


def _outcome(client: Client, recipe: Recipe | None) -> dict[str, Any]:
    examples = _balanced(client)
    bound, vector = (
        _sgd(client, examples) if recipe is None else certified(client, recipe, examples)
    )
    return {"n": len(examples), "certificate": bound, "error": client.error(vector)}


def _balanced(client: Client) -> Examples:
    """Return the first shots of each label in the client's own order, mixed again."""
    scenario, size = client.site.scenario, 1
    try:
        while True:
            found, size = scenario.support_examples(client.name, size), size * 2
    except DataError:
        labels = found.labels
    rows = [np.flatnonzero(labels == label)[:SHOTS] for label in np.unique(labels)]
    return found.take(np.sort(np.concatenate(rows)))


def _sgd(client: Client, examples: Examples) -> tuple[float, FloatArray]:
    """Train from zero on all of them, round to the code, and pay for the code."""
    trained = finetune(
        client.model,
        examples,
        seed=small_seed("sgd", client.site.seed, client.name),
        settings=client.site.settings.finetune_settings(),
    ).vector.astype(np.float64)
    levels = np.linspace(-1.0, 1.0, 2**_BITS)
    rounded = levels[np.abs(trained[:, None] - levels).argmin(axis=1)]
    code = CompressionRecipe(
        candidates=1, delta=DELTA, dimension=len(rounded), bits_per_coordinate=_BITS
    )
    errors = int(client.scorer.score(rounded[None], examples).wrong.sum())
    # Its accuracy is that of what was trained; rounding is the bound's affair.
    return code.bound(errors, len(examples)), trained
