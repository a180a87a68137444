"""Choosing how clients train, on validation examples of a few upstream clients."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np

from fedcert.adapters import FinetuneSettings, PrefixCache, finetune
from fedcert.adapters.forward import AdaptedModel
from fedcert.adapters.head_training import embedded_by, finetune_head
from fedcert.adapters.shared_layers import head_size
from fedcert.adapters.task import Task
from fedcert.data.examples import Examples
from fedcert.errors import FedcertError
from fedcert.randomness import keyed_generator, small_seed
from fedcert.scenarios import Scenario
from fedcert.search import BatchedScorer
from fedcert.settings import RunSettings
from fedcert.threads import torch_threads

__all__ = ["tuned"]

# Factors of the settings' learning rate and weight decay. Heads take next to no time.
_RATES, _DECAYS = (0.3, 1.0, 3.0), (0.1, 1.0, 10.0)
_WHOLE = 2  # clients, where the layers are trained as well
_VALIDATION = 0.25


def tuned(settings: RunSettings, scenario: Scenario) -> RunSettings:
    """Return the settings with the learning rate and weight decay that suit the data.

    A few upstream clients train on three quarters of their training examples, and the mean loss
    on the others decides. No new client's example is looked at.

    Parameters
    ----------
    settings : RunSettings
        What a run was asked for.
    scenario : Scenario
        Holds the clients.

    Returns
    -------
    RunSettings
        The same if they do not ask for it, or no client can train.
    """
    training = settings.training
    if not training.tuned:
        return settings
    base = scenario.load_base()
    head_only = training.parts != "all" and head_size(base) > 0
    budgets = settings.client
    cache = PrefixCache(budgets.cache_mib, disk_mib=budgets.cache_disk_mib)
    space = settings.space_of(base)
    parts = []
    tuners = settings.tuning_clients(scenario.upstream_clients)
    for client in tuners[: None if head_only else _WHOLE]:
        task = Task(base, space, scenario.inputs, scenario.labels)
        if not scenario.labels:
            task = task.with_labels(scenario.labels_of(client))
        try:
            examples = scenario.training_examples(client).usable
        except FedcertError:  # the run says so itself when it comes to that client
            continue
        parts.append((task.model(prefix_cache=cache), *_split(examples, client)))
    start = replace(settings.finetune_settings(), head_only=head_only)
    grid = [
        replace(
            start,
            learning_rate=start.learning_rate * rate,
            weight_decay=start.weight_decay * decay,
        )
        for rate, decay in product(_RATES, _DECAYS if head_only else (1.0,))
    ]
    with torch_threads(1):  # steps so small that threads would wait for each other
        losses = [_losses(model, train, held, grid) for model, train, held in parts]
    known = [row for row in losses if np.isfinite(row).all()]
    if not known:
        return settings
    best = grid[int(np.argmin(np.mean(known, axis=0)))]
    chosen = {"learning_rate": best.learning_rate, "weight_decay": best.weight_decay}
    return settings.model_copy(update={"training": training.model_copy(update=chosen)})


def _split(examples: Examples, client: str) -> tuple[Examples, Examples]:
    order = keyed_generator("tuning", client).permutation(len(examples))
    held = max(1, round(_VALIDATION * len(examples)))
    return examples.take(order[held:]), examples.take(order[:held])


def _losses(
    model: AdaptedModel, train: Examples, held: Examples, grid: list[FinetuneSettings]
) -> list[float]:
    """Return the mean losses on the examples that were held out; NaN if nothing was learned."""
    scorer, seed, found = BatchedScorer(model, margin_tolerance=0.0), small_seed("tuning"), []
    embedded = embedded_by(model, train) if grid[0].head_only else None
    for settings in grid:
        try:
            if embedded is None:
                vector = finetune(model, train, seed=seed, settings=settings).vector
            else:
                vector = finetune_head(
                    model, train, seed=seed, settings=settings, embedded=embedded
                ).vector
        except FedcertError:
            return [float("nan")]
        scores = scorer.score(vector[None].astype(np.float64), held)
        found.append(float(scores.losses.mean()))
    return found
