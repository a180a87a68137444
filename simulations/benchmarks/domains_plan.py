"""What a plan for the worst quarter changes for new clients, on the ground of the domains.

Planning clients and new clients replay the whole menu; a plan is made from the former for each
objective, and what it gives is read off the replays of the latter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch

from fedcert.certificates import Recipe
from fedcert.data.examples import Examples
from fedcert.planning import (
    ClientReplay,
    Objective,
    Plan,
    Replayed,
    menu,
    plan_client,
    recipe_name,
    tail_values,
)
from fedcert.priors import DiffusionPrior
from fedcert.randomness import derive_seed, small_seed
from fedcert.search.scores import Scorer, Scores, margins_and_losses
from fedcert.simulations.benchmarks.domains_ground import TRAINING, Ground

__all__ = ["PLANNING_VERSION", "planned_rows"]

PLANNING_VERSION = 1
SIZES = (16, 32, 64)
_DELTA, _CANDIDATES, _TOLERANCE = 0.05, 1000, 1e-4
# Upstream clients behind the prior; all others plan.
_FITTED = 96


class _HeadScorer(Scorer):
    """Scores heads on embeddings that are known."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(margin_tolerance=_TOLERANCE)
        self._ground = ground

    def score(
        self,
        vectors: npt.NDArray[np.float64],
        examples: Examples,
        *,
        on_scored: Callable[[int], None] = lambda _count: None,
    ) -> Scores:
        """Score candidates."""
        logits = self._ground.logits(vectors, examples)
        margins, losses = margins_and_losses(logits, torch.from_numpy(examples.labels))
        on_scored(len(vectors))
        return Scores((margins <= self.margin_tolerance).numpy(), losses.numpy())


def planned_rows(ground: Ground) -> list[dict[str, Any]]:
    """Return a row for each objective and n: what the plan's recipe gives new clients."""
    scenario = ground.federation.scenario
    prior = DiffusionPrior.fit(ground.pool[:_FITTED], seed=small_seed("prior", ground.seed))
    recipes = menu(candidates=_CANDIDATES, delta=_DELTA, posterior=None, training=TRAINING)
    scorer = _HeadScorer(ground)

    def replayed(client: str, examples: Examples) -> list[Replayed]:
        seed = derive_seed("planning", ground.seed, client)
        replay = ClientReplay(prior, scorer, examples, seed=seed, candidates=_CANDIDATES)
        return plan_client(replay, recipes, SIZES)

    planners = scenario.upstream_clients[_FITTED:]
    replays = [replayed(client, scenario.training_examples(client)) for client in planners]
    served = [replayed(client, ground.support(client)) for client in scenario.new_clients]
    return [
        {"domains": ground.groups, "seed": ground.seed, "planners": len(planners), **row}
        for row in _outcomes(recipes, replays, served)
    ]


def _outcomes(
    recipes: Sequence[Recipe],
    replays: Sequence[Sequence[Replayed]],
    served: Sequence[Sequence[Replayed]],
) -> list[dict[str, Any]]:
    """Compare the plans for both objectives on the clients that are served."""
    plans = {aim: Plan.of(recipes, replays, objective=aim) for aim in get_args(Objective)}
    rows = []
    for n in SIZES:
        by_aim = {aim: _bounds(served, recipes, plan, n) for aim, plan in plans.items()}
        for aim, bounds in by_aim.items():
            change = bounds - by_aim["mean"]
            rows.append(
                {
                    "objective": aim,
                    "n": n,
                    "recipe": recipe_name(plans[aim].expected(n).recipe),
                    "certificate": float(bounds.mean()),
                    "worst_quarter": float(np.mean(tail_values(bounds.tolist()))),
                    "change": float(change.mean()),
                    "change_se": float(change.std(ddof=1) / len(change) ** 0.5),
                }
            )
    return rows


def _bounds(
    served: Sequence[Sequence[Replayed]], recipes: Sequence[Recipe], plan: Plan, n: int
) -> npt.NDArray[np.float64]:
    """Return what each client's planned recipe certifies with n examples, on average."""
    number = list(recipes).index(plan.expected(n).recipe)
    return np.array(
        [row.mean for client in served for row in client if (row.recipe, row.n) == (number, n)]
    )
