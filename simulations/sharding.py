"""Sharding a large search over Ray workers, on this machine or a cluster."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

from fedcert.data.examples import Examples
from fedcert.errors import RunError
from fedcert.priors.base import Prior
from fedcert.search import Scorer, Winner, search
from fedcert.threads import torch_threads

__all__ = ["best_winner", "search_on_ray", "shard_ranges"]


def shard_ranges(candidates: int, shards: int) -> list[tuple[int, int]]:
    """Split candidates 0 to ``candidates - 1`` into (start, count) of about equal size."""
    ends = [candidates * shard // shards for shard in range(shards + 1)]
    return [(a, b - a) for a, b in itertools.pairwise(ends) if b > a]


def best_winner(winners: Iterable[Winner]) -> Winner:
    """Return the lowest (errors, loss, index): the winner of the undivided search."""
    return min(winners, key=lambda winner: (winner.errors, winner.loss, winner.index))


def search_on_ray(
    prior: Prior,
    make_scorer: Callable[[], Scorer],
    examples: Examples,
    *,
    seed: str,
    candidates: int,
    shards: int,
) -> Winner:
    """Search with one Ray task per shard; the winner does not depend on their number.

    Candidate j depends on (seed, j) alone, so each worker draws its own range.

    Parameters
    ----------
    prior : Prior
        What candidates are drawn from.
    make_scorer : callable
        Builds a scorer in the worker; it loads the base model there.
    examples : Examples
        The choosing examples.
    seed : str
        256 bits in hexadecimal.
    candidates : int
        M.
    shards : int
        Tasks, one core each. An initialized Ray is used as it is.

    Raises
    ------
    RunError
        If Ray is missing, or a worker fails.
    """
    try:
        import ray
    except ImportError as error:
        raise RunError("sharding needs Ray: pip install 'fedcert[simulation]'") from error

    def work(start: int, count: int) -> Winner:
        with torch_threads(1):
            return search(
                prior, make_scorer(), examples, seed=seed, candidates=count, start=start
            )

    task = ray.remote(num_cpus=1)(work)
    try:
        found = ray.get([task.remote(*part) for part in shard_ranges(candidates, shards)])
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise RunError(f"a shard of the search failed: {reason}") from error
    return best_winner(found)
