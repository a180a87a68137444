"""What a new client would have without the federation: the obvious thing to compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from fedcert.adapters.forward import AdaptedModel
from fedcert.certificates import Choice, PosteriorSplitRecipe
from fedcert.data.examples import Examples
from fedcert.scenarios import Scenario
from fedcert.search import BatchedScorer
from fedcert.search.learning import has_linear_head, local_head

__all__ = ["Alone", "alone", "scorers"]

Alone = dict[str, float | None]
"""``local_bound`` and ``local_error`` of one client; the error is None without test data."""


def alone(
    model: AdaptedModel,
    scenario: Scenario,
    *,
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
    sizes : sequence of int
        Values of n; the largest is what each of them is certified with.
    delta : float
        Delta of the certificate.
    most : int (default: 0)
        How many of the new clients, the first ones, for all n but the largest; 0 for all.
    on_step : callable, optional
        Called with the number of clients that were done since the last call.

    Returns
    -------
    dict
        By n and client; empty if the base model can have no head of a client's own. Clients
        that have no such examples are left out.
    """
    found: dict[int, dict[str, Alone]] = {n: {} for n in sizes}
    if not has_linear_head(model.space):
        return found
    recipe = PosteriorSplitRecipe(candidates=1, delta=delta, refinement="local_head")
    sampled = {*scenario.new_clients[: most or None]}
    for client, scorer in scorers(model, scenario, margin_tolerance=recipe.margin_tolerance):
        on_step(1)
        tests: Examples | None = None
        for n in sizes if client in sampled else [max(sizes)]:
            try:
                examples = scenario.support_examples(client, n)
            except Exception:  # noqa: S112 - a scenario is anybody's code; the run has told it
                continue
            # One array for all n: a scorer keeps what it computed for an array.
            tests = scenario.test_examples(client) if tests is None else tests
            found[n][client] = _certified(recipe, scorer, examples, tests)
    return found


def scorers(
    model: AdaptedModel, scenario: Scenario, *, margin_tolerance: float, most: int = 0
) -> Iterator[tuple[str, BatchedScorer]]:
    """Yield new clients with their scorers: one, or one each where labels are their own.

    A scorer keeps what it prepared of inputs that clients share.

    Parameters
    ----------
    model : AdaptedModel
        The base model in the adapters' space.
    scenario : Scenario
        Names the clients.
    margin_tolerance : float
        See `Scorer`.
    most : int (default: 0)
        How many clients, the first ones; 0 for all.

    Returns
    -------
    iterator of tuple
        Id and scorer of each.
    """
    common = BatchedScorer(model, margin_tolerance=margin_tolerance)
    for client in scenario.new_clients[: most or None]:
        if scenario.labels:
            yield client, common
            continue
        task = model.task.with_labels(scenario.labels_of(client))
        own = task.model(prefix_cache=model.prefix_cache)
        yield client, BatchedScorer(own, margin_tolerance=margin_tolerance)


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
