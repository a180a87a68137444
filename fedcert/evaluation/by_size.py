"""What recipes would certify with fewer of the same labels: replays, no certificates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.adapters.constants import constant_adapters
from fedcert.adapters.forward import AdaptedModel
from fedcert.arrays import FloatArray
from fedcert.certificates import (
    Recipe,
    RecipeTable,
    SplitRecipe,
    SteelRecipe,
    UnionRecipe,
)
from fedcert.data.examples import Examples
from fedcert.evaluation.clients import scorers
from fedcert.personalization import candidate_seed
from fedcert.planning import ClientReplay
from fedcert.priors import PointPrior, Prior
from fedcert.protocol.seeds import recipe_for_attempt
from fedcert.scenarios import Scenario
from fedcert.search import BatchedScorer

__all__ = ["SERVED", "bounds_by_size", "sizes_up_to"]

SIZES = (8, 16, 32, 64)
SERVED = "served"
"""What the rows of the recipe that serves are called, whichever it is at each n."""


def bounds_by_size(
    prior: Prior,
    model: AdaptedModel,
    scenario: Scenario,
    *,
    bundle_digest: str,
    candidates: int,
    delta: float,
    largest: int,
    clients: Sequence[str],
    served: RecipeTable | None = None,
    on_step: Callable[[int], None] = lambda _count: None,
) -> list[dict[str, Any]]:
    """Replay the recipes on growing parts of the support sets.

    Support sets nest, so one table of errors per client serves every n. These figures are
    means over a simulation, not certificates: nobody may choose n or recipe by them and then
    certify on the same examples.

    Parameters
    ----------
    prior : Prior
        The distribution that candidates are drawn from.
    model : AdaptedModel
        The base model in the adapters' space.
    scenario : Scenario
        Holds the clients' examples.
    bundle_digest : str
        Digest of the bundle, from which the seeds follow.
    candidates : int
        M of each recipe; those that choose among candidates are left out where all are one.
    delta : float
        Delta of each recipe.
    largest : int
        The largest n, which is always among the sizes.
    clients : sequence of str
        Whose examples; each has as many as the largest n.
    served : RecipeTable, optional
        Which recipe serves which n: replayed as well, under the name `SERVED`.
    on_step : callable, optional
        Called with the number of steps that were done since the last call.

    Returns
    -------
    list of dict
        ``{"recipe", "n", "bound", "test_error"}``, means over the clients.
    """
    compared: list[Recipe] = [
        variant(candidates=candidates, delta=delta)
        for variant in (UnionRecipe, SplitRecipe, SteelRecipe)
    ]
    if prior.kind == PointPrior.kind:
        compared = []  # there is nothing to choose among
    sizes = sizes_up_to(largest)
    to_replay = [(recipe.kind, recipe, n) for recipe in compared for n in sizes]
    if served is not None:
        # A first attempt's share of delta, as in the certificates.
        first = [(n, recipe_for_attempt(served.recipe_for(n), 1)) for n in sizes]
        to_replay = [(SERVED, recipe, n) for n, recipe in first] + to_replay
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    tolerance = max(recipe.margin_tolerance for _, recipe, _ in to_replay)
    drawn = max(recipe.candidates for _, recipe, _ in to_replay)
    for client, scorer in scorers(model, scenario, clients, margin_tolerance=tolerance):
        replays = ClientReplay(
            prior,
            scorer,
            scenario.support_examples(client, largest),
            seed=candidate_seed(bundle_digest, client, largest),
            candidates=drawn,
            constants=constant_adapters(scorer.model.space, scorer.model.task.base.num_labels),
            tested=_tester(scorer, scenario.test_examples(client)),
        )
        for name, recipe, n in to_replay:
            outcome = replays.outcome(recipe, n)
            found.setdefault((name, n), []).append((outcome.bound, outcome.risk))
        on_step(1)
    return [
        {"recipe": kind, "n": n, "bound": float(means[0]), "test_error": _number(means[1])}
        for (kind, n), values in found.items()
        for means in [np.mean(values, axis=0)]
    ]


def sizes_up_to(largest: int) -> list[int]:
    """Return the values of n that a report compares; the largest is one of them."""
    return sorted({n for n in SIZES if n < largest} | {largest})


def _tester(
    scorer: BatchedScorer, examples: Examples | None
) -> Callable[[FloatArray], npt.NDArray[np.bool_]] | None:
    """Return what tells which predictions of adapters are wrong, given test examples."""
    if examples is None:
        return None
    return lambda adapters: scorer.score(adapters, examples).wrong


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
