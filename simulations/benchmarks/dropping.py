"""What early dropping saves with a prior that is good for something.

With a prior that knows nothing every candidate is as bad as the next, and hardly any can be
dropped; so this fits the demo's prior first.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import numpy as np

from fedcert.adapters import AdaptedModel, AdapterSpace, finetune
from fedcert.fitting import fit_prior
from fedcert.models import load_base_model
from fedcert.randomness import derive_seed
from fedcert.scenarios import load_scenario
from fedcert.search import BatchedScorer, search
from fedcert.settings import RunSettings
from fedcert.threads import torch_threads

__all__ = ["measure_dropping"]

CANDIDATES, EXAMPLES = 10_000, 64


def measure_dropping() -> dict[str, Any]:
    """Search each new client's support set with and without early dropping, in turn."""
    sys.stdout.write("early dropping: training the demo's adapters\n")
    settings = RunSettings()
    scenario = load_scenario("digits", {})
    base = load_base_model(str(scenario.base_model()), num_labels=len(scenario.labels))
    model = AdaptedModel(base, AdapterSpace.of(base, rank=settings.adapter.rank))
    with torch_threads(1):
        pool = np.array(
            [
                finetune(
                    model,
                    scenario.training_examples(client),
                    spec=scenario.inputs,
                    seed=0,
                    settings=settings.finetune_settings(),
                ).vector
                for client in scenario.upstream_clients
            ],
            dtype=np.float64,
        )
    prior = fit_prior(pool, settings=settings.prior, seed=0).prior
    whole, scoring, same = [], [], []
    for client in scenario.new_clients:
        examples, seed = scenario.support_examples(client, EXAMPLES), derive_seed(client)
        started = time.perf_counter()
        prior.sample(seed, count=CANDIDATES)
        drawing = time.perf_counter() - started
        times, winners = [], []
        for dropping in (False, True):
            scorer = BatchedScorer(model, scenario.inputs, margin_tolerance=1e-4)
            started = time.perf_counter()
            winner = search(
                prior,
                scorer,
                examples,
                seed=seed,
                candidates=CANDIDATES,
                early_dropping=dropping,
            )
            times.append(time.perf_counter() - started)
            winners.append(winner.index)
        whole.append(times[0] / times[1])
        scoring.append((times[0] - drawing) / max(times[1] - drawing, 1e-9))
        same.append(winners[0] == winners[1])
    return {
        "scenario": "digits",
        "prior": prior.kind,
        "candidates": CANDIDATES,
        "n": EXAMPLES,
        "clients": len(same),
        "speedup": statistics.median(whole),
        "scoring_speedup": statistics.median(scoring),
        "same_winner": float(np.mean(same)),
    }
