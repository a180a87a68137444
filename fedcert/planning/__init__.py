"""Planning: which recipe to expect the lowest certificate from, before any data is spent."""

from fedcert.planning.menu import MODE_STEPS, Posterior, menu, recipe_name, worth_trying
from fedcert.planning.plan import (
    Objective,
    Plan,
    PlanRow,
    Replayed,
    best_by_size,
    cautious_mean,
    tail_values,
)
from fedcert.planning.replays import ClientReplay, plan_client
from fedcert.planning.replies import replays_from_config, replays_to_config

__all__ = [
    "MODE_STEPS",
    "ClientReplay",
    "Objective",
    "Plan",
    "PlanRow",
    "Posterior",
    "Replayed",
    "best_by_size",
    "cautious_mean",
    "menu",
    "plan_client",
    "recipe_name",
    "replays_from_config",
    "replays_to_config",
    "tail_values",
    "worth_trying",
]
