"""How `fedcert.models.heads.UNIT_SCALE` was chosen: on upstream clients' texts alone.

``python -m fedcert.simulations.benchmarks.unit_scale`` trains a head for a few upstream
clients of each scenario with the scenario's own settings, on three quarters of their training
examples, once for each scale, and loss and error on the other quarter tell them apart. No new
client's example is looked at, nor a test example.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from fedcert.adapters.head_training import embedded_by, finetune_head
from fedcert.adapters.shared_layers import head_logits
from fedcert.adapters.task import Task
from fedcert.models.base import load_base_model
from fedcert.models.heads import UNIT_SCALE
from fedcert.randomness import keyed_generator, small_seed
from fedcert.scenarios import load_scenario
from fedcert.settings import RunSettings
from fedcert.simulations.benchmarks.options import without_options
from fedcert.simulations.benchmarks.publishing import say
from fedcert.threads import torch_threads

__all__ = ["losses_by_scale", "main"]

SCENARIOS, CLIENTS = ("intents", "politeness", "topics"), 12
SCALES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_VALIDATION = 0.25


def losses_by_scale(
    scenario_name: str, *, clients: int, scales: tuple[float, ...]
) -> tuple[dict[float, float], dict[float, float]]:
    """Return the mean loss and error on held-out upstream examples, by scale.

    Parameters
    ----------
    scenario_name : str
        A scenario whose base model has a trained head on embeddings of unit length.
    clients : int
        How many upstream clients train.
    scales : tuple of float
        What embeddings are multiplied with.

    Returns
    -------
    tuple of dict
        Losses in nats, and shares of wrong labels, both by scale.
    """
    settings = RunSettings.from_mapping({"scenario": {"name": scenario_name}})
    scenario = load_scenario(scenario_name, {})
    base = load_base_model(str(scenario.base_model()), num_labels=len(scenario.labels))
    model = Task(base, settings.space_of(base), scenario.inputs, scenario.labels).model()
    head: Any = base.model.get_submodule("task_head")
    losses: dict[float, list[float]] = {scale: [] for scale in scales}
    errors: dict[float, list[float]] = {scale: [] for scale in scales}
    for client in scenario.upstream_clients[:clients]:
        examples = scenario.training_examples(client).usable
        order = keyed_generator("unit scale", client).permutation(len(examples))
        held = round(_VALIDATION * len(examples))
        train, rest = examples.take(order[held:]), examples.take(order[:held])
        embedded, unseen = embedded_by(model, train), embedded_by(model, rest)
        labels = torch.from_numpy(rest.labels)
        for scale in scales:
            head.scale = scale
            trained = finetune_head(
                model,
                train,
                seed=small_seed("unit scale"),
                settings=settings.finetune_settings(),
                embedded=embedded,
            )
            logits = head_logits(model, unseen, torch.from_numpy(trained.vector[None]))[0]
            losses[scale].append(float(cross_entropy(logits, labels)))
            errors[scale].append(float((logits.argmax(dim=-1) != labels).float().mean()))
    return _means(losses), _means(errors)


def _means(values: Mapping[float, list[float]]) -> dict[float, float]:
    return {scale: float(np.mean(found)) for scale, found in values.items()}


def main() -> None:
    """Print losses and errors, and which scale has the lowest on the mean of the scenarios."""
    found = {"loss": dict.fromkeys(SCALES, 0.0), "error": dict.fromkeys(SCALES, 0.0)}
    with torch_threads(1):
        for name in SCENARIOS:
            losses, errors = losses_by_scale(name, clients=CLIENTS, scales=SCALES)
            cells = [f"{s:g}: {losses[s]:.3f} nats, error {errors[s]:.3f}" for s in SCALES]
            say(f"{name}: {'; '.join(cells)}")
            for scale in SCALES:
                found["loss"][scale] += losses[scale] / len(SCENARIOS)
                found["error"][scale] += errors[scale] / len(SCENARIOS)
    for what, means in found.items():
        best = min(SCALES, key=lambda scale: means[scale])
        say(
            f"lowest mean {what}: {means[best]:.3f} at {best:g}; {means[UNIT_SCALE]:.3f} in use"
        )


if __name__ == "__main__":
    without_options("unit_scale", __doc__)
    main()
