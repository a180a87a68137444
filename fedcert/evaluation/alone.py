"""What a new client would have without the federation: the obvious thing to compare with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fedcert.adapters.forward import AdaptedModel
from fedcert.certificates import Choice, PosteriorSplitRecipe
from fedcert.data.examples import Examples
from fedcert.evaluation.clients import scorers
from fedcert.scenarios import Scenario
from fedcert.search import BatchedScorer
from fedcert.search.learning import has_linear_head, local_head

__all__ = ["Alone", "alone", "bounds_alone"]

Alone = dict[str, float | None]
"""``local_bound`` and ``local_error`` of one client; the error is None without test data."""


def alone(
    model: AdaptedModel,
    scenario: Scenario,
    *,
    clients: Sequence[str],
    sizes: Sequence[int],
    delta: float,
    most: int = 0,
    on_step: Callable[[int], None] = lambda _count: None,
) -> dict[int, dict[str, Alone]]:
    """Train a head on half of each new client's examples, and certify on the other half.

    Nothing of the federation is in it: features are those of the frozen base model, and the
    head is a logistic regression.

    Parameters
    ----------
    model : AdaptedModel
        The base model in the adapters' space.
    scenario : Scenario
        Holds the new clients' examples.
    clients : sequence of str
        New clients that have as many examples as the largest of the sizes.
    sizes : sequence of int
        Values of n; the largest is what each of them is certified with.
    delta : float
        Delta of the certificate.
    most : int (default: 0)
        How many of them, the first ones, for all n but the largest; 0 for all.
    on_step : callable, optional
        Called with the number of clients that were done since the last call.

    Returns
    -------
    dict
        By n and client; empty if the base model can have no head of a client's own.
    """
    found: dict[int, dict[str, Alone]] = {n: {} for n in sizes}
    if not has_linear_head(model.space):
        return found
    recipe = PosteriorSplitRecipe(candidates=1, delta=delta, refinement="local_head")
    sampled = {*clients[: most or None]}
    tolerance = recipe.margin_tolerance
    for client, scorer in scorers(model, scenario, clients, margin_tolerance=tolerance):
        on_step(1)
        tests: Examples | None = None
        for n in sizes if client in sampled else [max(sizes)]:
            examples = scenario.support_examples(client, n)
            # One array for all n: a scorer keeps what it computed for an array.
            tests = scenario.test_examples(client) if tests is None else tests
            found[n][client] = _certified(recipe, scorer, examples, tests)
    return found


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


def _certified(
    recipe: PosteriorSplitRecipe,
    scorer: BatchedScorer,
    examples: Examples,
    tests: Examples | None,
) -> Alone:
    n = len(examples)
    certifying = recipe.certifying(n)
    vector = local_head(scorer, examples.take(recipe.choosing(n).as_slice()))[None]
    errors = int(scorer.score(vector, examples.take(certifying.as_slice())).wrong.sum())
    return {
        "local_bound": recipe.bound(errors, certifying.size, Choice(index=0)),
        "local_error": None
        if tests is None
        else float(np.mean(scorer.score(vector, tests).wrong)),
    }
