"""What a run measures beyond the protocol where it has its clients' data: in simulations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.adapters.constants import constant_adapters
from fedcert.adapters.forward import AdaptedModel
from fedcert.arrays import FloatArray
from fedcert.canonical import digest_tensors
from fedcert.certificates import (
    Recipe,
    RecipeTable,
    SplitRecipe,
    SteelRecipe,
    UnionRecipe,
)
from fedcert.data.examples import Examples
from fedcert.errors import PriorError
from fedcert.personalization import candidate_seed
from fedcert.planning import ClientReplay
from fedcert.priors import PRIORS, PointPrior, Prior, best_of
from fedcert.protocol.seeds import recipe_for_attempt
from fedcert.randomness import derive_seed, small_seed
from fedcert.scenarios import Scenario
from fedcert.search import BatchedScorer
from fedcert.strategies.local_learner import Alone, scorers

__all__ = [
    "SERVED",
    "bounds_alone",
    "bounds_by_size",
    "client_risks",
    "fit_baselines",
    "inputs_digest",
    "risk_curves",
    "sizes_up_to",
]

SIZES = (8, 16, 32, 64)
SERVED = "served"
"""What the rows of the recipe that serves are called, whichever it is at each n."""


def fit_baselines(prior: Prior, fitted_on: FloatArray, *, seed: int) -> dict[str, Prior]:
    """Fit every other kind of prior to the same adapters; return all by kind.

    Parameters
    ----------
    prior : Prior
        A fitted prior.
    fitted_on : numpy.ndarray
        The adapters that it was fitted to, shape ``(N, d)``.
    seed : int
        Draws what the fits draw.

    Returns
    -------
    dict
        Priors by kind, the given one first; without those that take more adapters.
    """
    found = {prior.kind: prior}
    for kind, variant in PRIORS.items():
        if kind != prior.kind:
            # Some kinds take more adapters than a small federation has.
            with suppress(PriorError):
                found[kind] = variant.fit(fitted_on, seed=small_seed("prior", seed))
    return found


def risk_curves(
    priors: dict[str, Prior],
    model: AdaptedModel,
    scenario: Scenario,
    *,
    candidates: int,
    seed: int,
    most: int = 0,
    on_step: Callable[[int], None] = lambda _count: None,
) -> list[dict[str, Any]]:
    """Measure best-of-M risk on the new clients' tasks, for each prior at equal M.

    All priors get the same noise seed.

    Parameters
    ----------
    priors : dict
        The priors to compare, by kind.
    model : AdaptedModel
        The base model in the adapters' space.
    scenario : Scenario
        Holds the new clients' tasks.
    candidates : int
        The largest M.
    seed : int
        Draws the candidates.
    most : int (default: 0)
        How many of the new clients; 0 for all.
    on_step : callable, optional
        Called with the number of steps that were done since the last call.

    Returns
    -------
    list of dict
        ``{"prior": kind, "best_of": [{"m", "risk", "se"}, ...]}``; empty without test data.
    """
    counts = sorted({m for m in (1, 3, 10, 30, 100, 300, 1000, 3000) if m < candidates}
                    | {candidates})  # fmt: skip
    curves = []
    for kind, prior in priors.items():
        vectors = prior.sample(derive_seed("risk profile", seed), count=candidates)
        risks = client_risks(model, scenario, vectors, counts, most=most)
        if not len(risks):
            return []
        error = (
            risks.std(axis=0, ddof=1) / len(risks) ** 0.5 if len(risks) > 1 else 0 * risks[0]
        )
        rows = zip(counts, risks.mean(axis=0), error, strict=True)
        curves.append(
            {
                "prior": kind,
                "best_of": [{"m": m, "risk": float(r), "se": float(e)} for m, r, e in rows],
            }
        )
        on_step(1)
    return curves


def client_risks(
    model: AdaptedModel,
    scenario: Scenario,
    vectors: FloatArray,
    counts: list[int],
    *,
    most: int = 0,
) -> FloatArray:
    """Estimate the risk of the best of the first M candidates for each new client.

    Parameters
    ----------
    model : AdaptedModel
        The task's model.
    scenario : Scenario
        Gives the new clients' test examples; clients without any are left out.
    vectors : numpy.ndarray
        Candidates, shape ``(M, d)``.
    counts : list of int
        Values of M, at most ``len(vectors)``.
    most : int (default: 0)
        How many of the new clients; 0 for all.

    Returns
    -------
    numpy.ndarray
        Float64, shape ``(clients, len(counts))``; see `best_of`.
    """
    shared: dict[tuple[str, tuple[str, ...]], npt.NDArray[np.int64]] = {}
    risks = []
    for client, scorer in scorers(model, scenario, margin_tolerance=0.0, most=most):
        examples = scenario.test_examples(client)
        if examples is None:
            continue
        # Clients with the same test inputs and labels share predictions.
        key = inputs_digest(examples.inputs), scenario.labels_of(client)
        if key not in shared:
            shared[key] = scorer.predict(vectors, examples.inputs)
        risks.append(best_of(shared[key] != examples.labels, counts))
    return np.array(risks).reshape(-1, len(counts))


def inputs_digest(inputs: npt.NDArray[Any]) -> str:
    """Return what tells arrays of inputs apart, texts included."""
    return digest_tensors({"inputs": inputs.astype(str) if inputs.dtype == object else inputs})


def bounds_by_size(
    prior: Prior,
    model: AdaptedModel,
    scenario: Scenario,
    *,
    bundle_digest: str,
    candidates: int,
    delta: float,
    largest: int,
    most: int = 0,
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
        Holds the new clients' examples.
    bundle_digest : str
        Digest of the bundle, from which the seeds follow.
    candidates : int
        M of each recipe; those that choose among candidates are left out where all are one.
    delta : float
        Delta of each recipe.
    largest : int
        The largest n, which is always among the sizes.
    most : int (default: 0)
        How many of the new clients; 0 for all.
    served : RecipeTable, optional
        Which recipe serves which n: replayed as well, under the name `SERVED`.
    on_step : callable, optional
        Called with the number of steps that were done since the last call.

    Returns
    -------
    list of dict
        ``{"recipe", "n", "bound", "test_error"}``, means over the new clients.
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
    for client, scorer in scorers(model, scenario, margin_tolerance=tolerance, most=most):
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


def bounds_alone(
    found: Mapping[int, Mapping[str, Alone]], *, among: Sequence[str]
) -> list[dict[str, Any]]:
    """Average what new clients would certify without a federation.

    Parameters
    ----------
    found : Mapping
        What `alone` gives, by n.
    among : sequence of str
        The clients to average over.

    Returns
    -------
    list of dict
        ``{"n", "bound", "test_error"}``, means over those clients.
    """
    rows = []
    for n, clients in found.items():
        own = [row for client, row in clients.items() if client in among]
        errors = [row["local_error"] for row in own if row["local_error"] is not None]
        if own:
            rows.append(
                {
                    "n": n,
                    "bound": float(np.mean([row["local_bound"] for row in own])),
                    "test_error": float(np.mean(errors)) if errors else None,
                }
            )
    return rows


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
