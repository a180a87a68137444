"""What early dropping saves with a prior that is good for something.

With a prior that knows nothing every candidate is as bad as the next, and hardly any can be
dropped; so this fits a scenario's own prior first.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.data.examples import Examples
from fedcert.errors import SettingsError
from fedcert.fitting import fit_prior
from fedcert.priors import Prior
from fedcert.randomness import derive_seed
from fedcert.search import BatchedScorer, Scorer, Scores, Winner, search
from fedcert.simulations.benchmarks.federations import Federation
from fedcert.simulations.benchmarks.publishing import say
from fedcert.threads import torch_threads

__all__ = ["exhaustive_search", "fitted", "measure_dropping"]

EXAMPLES = 64
_CHUNK = 1024
# New clients and candidates of each scenario: on texts an exhaustive search takes minutes.
CLIENTS = {"digits": (20, 10_000), "intents": (5, 2_000)}


class _Watched(Scorer):
    """Keeps the time that scoring takes; the rest of a search is drawing."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__(margin_tolerance=scorer.margin_tolerance)
        self._scorer, self.seconds = scorer, 0.0

    def score(
        self,
        vectors: npt.NDArray[np.float64],
        examples: Examples,
        *,
        on_scored: Callable[[int], None] = lambda _count: None,
    ) -> Scores:
        """Score and take the time."""
        started = time.perf_counter()
        scores = self._scorer.score(vectors, examples, on_scored=on_scored)
        self.seconds += time.perf_counter() - started
        return scores


def fitted(name: str) -> tuple[Federation, Prior]:
    """Train a scenario's upstream adapters, or take them from the cache, and fit its prior."""
    federation = Federation.of(name, seed=0)
    say(f"{name}: training the upstream adapters")
    with torch_threads(1):
        pool = federation.pool()
    return federation, fit_prior(pool, settings=federation.settings.prior, seed=0).prior


def measure_dropping() -> list[dict[str, Any]]:
    """Search new clients' support sets in both ways, in turn; one row for each scenario."""
    rows = []
    for name, (count, candidates) in CLIENTS.items():
        try:
            federation, prior = fitted(name)
        except SettingsError as error:
            say(f"early dropping leaves out {name}: {error}")
            continue
        clients = federation.scenario.new_clients[:count]
        turns = [_turn(federation, prior, client, candidates) for client in clients]
        rows.append(_row(name, prior, candidates, turns))
    return rows


_Timed = tuple[float, float, Winner]


def exhaustive_search(
    prior: Prior, scorer: Scorer, examples: Examples, *, seed: str, candidates: int
) -> Winner:
    """Score every candidate on every example, as `fedcert.search.search` need not.

    Parameters
    ----------
    prior : Prior
        The distribution that candidates are drawn from.
    scorer : Scorer
        Counts errors.
    examples : Examples
        The choosing examples.
    seed : str
        256 bits in hexadecimal.
    candidates : int
        M, how many candidates there are.

    Returns
    -------
    Winner
        The lowest (errors, loss, index).
    """
    best: Winner | None = None
    for first in range(0, candidates, _CHUNK):
        vectors = prior.sample(seed, start=first, count=min(_CHUNK, candidates - first))
        row, errors, loss = scorer.score(vectors, examples).best()
        if best is None or (errors, loss) < (best.errors, best.loss):
            best = Winner(first + row, errors, loss, vectors[row])
    assert best is not None
    return best


def _turn(
    federation: Federation, prior: Prior, client: str, candidates: int
) -> tuple[_Timed, _Timed]:
    """Return seconds, seconds of scoring alone, and winner: exhaustive, and racing."""
    scenario = federation.scenario
    examples = scenario.support_examples(client, EXAMPLES)
    # The same warm start for both.
    federation.model.prepare(federation.model.task.encode(examples))

    def timed(find: Callable[..., Winner]) -> _Timed:
        scorer = _Watched(BatchedScorer(federation.model, margin_tolerance=1e-4))
        started = time.perf_counter()
        winner = find(prior, scorer, examples, seed=derive_seed(client), candidates=candidates)
        return time.perf_counter() - started, scorer.seconds, winner

    return timed(exhaustive_search), timed(search)


def _row(
    name: str, prior: Prior, candidates: int, turns: list[tuple[_Timed, _Timed]]
) -> dict[str, Any]:
    return {
        "scenario": name,
        "prior": prior.kind,
        "candidates": candidates,
        "n": EXAMPLES,
        "clients": len(turns),
        "speedup": statistics.median(full[0] / fast[0] for full, fast in turns),
        "scoring_speedup": statistics.median(full[1] / fast[1] for full, fast in turns),
        "drawing_share": statistics.median(1 - full[1] / full[0] for full, _ in turns),
        "same_winner": float(np.mean([full[2].index == fast[2].index for full, fast in turns])),
    }
