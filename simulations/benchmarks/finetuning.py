"""A new client end to end, against fine-tuning a LoRA adapter of its own.

The comparison is with a competent fine-tune: steps and learning rate are those with the lowest
validation error on clients that are not measured, found with far more labeled examples than a
new client has. All three adapt the same modules of the same model.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch.nn.functional import cross_entropy

from fedcert.adapters import FinetuneSettings, finetune
from fedcert.bundles import Bundle
from fedcert.certificates import DefaultRecipe, RecipeTable
from fedcert.data.examples import Examples
from fedcert.errors import SettingsError
from fedcert.models.encoder import TASK_HEAD
from fedcert.personalization import personalize
from fedcert.randomness import keyed_generator
from fedcert.search import BatchedScorer
from fedcert.settings import RunSettings
from fedcert.settings.recipes import recipe_table
from fedcert.simulations.benchmarks.dropping import fitted
from fedcert.simulations.benchmarks.federations import Federation
from fedcert.simulations.benchmarks.publishing import say

__all__ = ["measure_finetuning"]

CANDIDATES, EXAMPLES, REPEATS = 1000, 64, 5
BATCH, STEPS, EVERY = 16, 100, 10
TUNING_CLIENTS = 2
RATES, CACHED_RATES = (1e-3, 3e-3, 1e-2), (0.01, 0.03, 0.1)


def measure_finetuning() -> dict[str, Any] | None:
    """Time sampling, search and certificate against both ways to fine-tune, in turn."""
    try:
        federation, prior = fitted("intents")
    except SettingsError as error:
        say(f"fine-tuning is left out: {error}")
        return None
    scenario = federation.scenario
    tuning, measured = np.split(np.array(scenario.new_clients), [TUNING_CLIENTS])
    say("fine-tuning: looking for steps and learning rate")
    rate, steps = _best_plain(federation, tuning.tolist())
    # One for all: it keeps what it prepared of test texts that clients share.
    scorer = BatchedScorer(federation.model, margin_tolerance=0.0)
    cached_rate = _best_cached(federation, scorer, tuning.tolist(), steps)
    bundle = _bundle(federation, prior)
    certificate = federation.settings.certificate
    default = DefaultRecipe(candidates=1, delta=certificate.delta)
    without = replace(bundle, recipes=RecipeTable(((1, default),)))
    turns: list[dict[str, tuple[float, float]]] = []
    for client in measured[:REPEATS].tolist():
        support = scenario.support_examples(client, EXAMPLES)
        test = scenario.test_examples(client)
        assert test is not None  # intents has them
        turns.append(
            {
                "default": _personalized(federation, scorer, without, client),
                "new_client": _personalized(federation, scorer, bundle, client),
                "peft": _plain(federation, support, test, rate, steps),
                "cached": _cached(federation, scorer, support, test, cached_rate, steps),
            }
        )
    return {
        "scenario": "intents",
        "n": EXAMPLES,
        "candidates": CANDIDATES,
        "clients": REPEATS,
        "steps": steps,
        "batch_size": BATCH,
        "learning_rate": rate,
        "learning_rate_cached": cached_rate,
        **{
            f"{way}_{what}": statistics.median(turn[way][place] for turn in turns)
            for way in turns[0]
            for place, what in enumerate(("seconds", "test_error"))
        },
        "time_vs_peft": _ratio(turns, "new_client", "peft"),
        "time_vs_cached": _ratio(turns, "new_client", "cached"),
        "default_vs_peft": _ratio(turns, "default", "peft"),
    }


def _ratio(turns: list[dict[str, tuple[float, float]]], way: str, other: str) -> float:
    return statistics.median(turn[way][0] / turn[other][0] for turn in turns)


def _bundle(federation: Federation, prior: Any) -> Bundle:
    settings: RunSettings = federation.settings
    base = federation.model.base
    return Bundle(
        base_name=base.name,
        base_revision=base.revision,
        base_digest=base.digest,
        notes={},
        prior=prior,
        space=federation.model.space,
        inputs=federation.scenario.inputs,
        labels=tuple(federation.scenario.labels),
        recipes=recipe_table(settings),
    )


def _personalized(
    federation: Federation, scorer: BatchedScorer, bundle: Bundle, client: str
) -> tuple[float, float]:
    """Sample, search, and certify as a device does, which has not seen any text before."""
    model = federation.model.task.model()
    support = federation.scenario.support_examples(client, EXAMPLES)
    test = federation.scenario.test_examples(client)
    assert test is not None
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        result = personalize(
            bundle,
            model,
            support,
            client=client,
            key=Ed25519PrivateKey.generate(),
            folder=Path(folder),
        )
        seconds = time.perf_counter() - started
    return seconds, _error(scorer, result.certificate.adapter_vector, test)


def _cached(
    federation: Federation,
    scorer: BatchedScorer,
    support: Examples,
    test: Examples,
    rate: float,
    steps: int,
) -> tuple[float, float]:
    model = federation.model.task.model()
    settings = FinetuneSettings(steps=steps, batch_size=BATCH, learning_rate=rate)
    started = time.perf_counter()
    result = finetune(model, support, seed=0, settings=settings)
    return time.perf_counter() - started, _error(scorer, result.vector, test)


def _error(scorer: BatchedScorer, vector: Any, test: Examples) -> float:
    return float(scorer.score(np.asarray(vector, np.float64)[None], test).wrong.mean())


def _plain(
    federation: Federation, support: Examples, test: Examples, rate: float, steps: int
) -> tuple[float, float]:
    started = time.perf_counter()
    model = None
    for _, trained in _peft_loop(federation, support, rate, steps):
        model = trained
    return time.perf_counter() - started, _peft_error(federation, model, test)


def _peft_loop(
    federation: Federation, support: Examples, rate: float, steps: int
) -> Iterator[tuple[int, Any]]:
    """Fine-tune with stock PEFT; yield the model after every few steps and at the end."""
    from peft import LoraConfig, get_peft_model

    task, labels = federation.model.task, torch.from_numpy(support.labels)
    config = LoraConfig(
        r=8,
        lora_alpha=16,
        target_modules=[target.name for target in task.space.targets],
        modules_to_save=[task.space.head_module or TASK_HEAD],
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = get_peft_model(copy.deepcopy(task.base.model), config)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate)
    generator = keyed_generator("bench/peft")
    for step in range(1, steps + 1):
        rows = generator.choice(len(support), BATCH, replace=False)
        logits = model(**task.encode(support.take(rows))).logits
        optimizer.zero_grad()
        loss = cross_entropy(logits, labels[rows])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % EVERY == 0 or step == steps:
            yield step, model


@torch.inference_mode()
def _peft_error(federation: Federation, model: Any, test: Examples) -> float:
    wrong = []
    for start in range(0, len(test), 64):
        part = test.take(slice(start, start + 64))
        predicted = model(**federation.model.task.encode(part)).logits.argmax(-1).numpy()
        wrong.append(predicted != part.labels)
    return float(np.concatenate(wrong).mean())


def _best_plain(federation: Federation, clients: list[str]) -> tuple[float, int]:
    """Return learning rate and steps with the lowest validation error of the PEFT loop."""
    found: dict[tuple[float, int], list[float]] = {}
    for client in clients:
        support, validation = _with_validation(federation, client)
        for rate in RATES:
            for step, model in _peft_loop(federation, support, rate, STEPS):
                error = _peft_error(federation, model, validation)
                found.setdefault((rate, step), []).append(error)
    # The fewest steps among equals.
    return min(found, key=lambda key: (float(np.mean(found[key])), key[1]))


def _best_cached(
    federation: Federation, scorer: BatchedScorer, clients: list[str], steps: int
) -> float:
    """Return the learning rate with the lowest validation error after so many steps."""
    parts = [_with_validation(federation, client) for client in clients]
    errors = {
        rate: np.mean([_cached(federation, scorer, *part, rate, steps)[1] for part in parts])
        for rate in CACHED_RATES
    }
    return min(errors, key=lambda rate: float(errors[rate]))


def _with_validation(federation: Federation, client: str) -> tuple[Examples, Examples]:
    """Return a support set, and further examples to validate on."""
    examples = federation.scenario.support_examples(client, EXAMPLES + 200)
    return examples.take(slice(0, EXAMPLES)), examples.take(slice(EXAMPLES, None))
