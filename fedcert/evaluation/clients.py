"""New clients with what scores adapters on their examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fedcert.adapters.forward import AdaptedModel
from fedcert.scenarios import Scenario
from fedcert.search import BatchedScorer

__all__ = ["scorers"]


def scorers(
    model: AdaptedModel, scenario: Scenario, clients: Sequence[str], *, margin_tolerance: float
) -> Iterator[tuple[str, BatchedScorer]]:
    """Yield clients with their scorers: one, or one each where labels are their own.

    A scorer keeps what it prepared of inputs that clients share.

    Parameters
    ----------
    model : AdaptedModel
        The base model in the adapters' space.
    scenario : Scenario
        Names the labels.
    clients : sequence of str
        New clients.
    margin_tolerance : float
        See `Scorer`.

    Returns
    -------
    iterator of tuple
        Id and scorer of each.
    """
    common = BatchedScorer(model, margin_tolerance=margin_tolerance)
    for client in clients:
        if scenario.labels:
            yield client, common
            continue
        task = model.task.with_labels(scenario.labels_of(client))
        own = task.model(prefix_cache=model.prefix_cache)
        yield client, BatchedScorer(own, margin_tolerance=margin_tolerance)
