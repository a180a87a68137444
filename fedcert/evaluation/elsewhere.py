"""What personalizing forgets: a new client's adapter on the test examples of the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from fedcert.adapters.forward import AdaptedModel
from fedcert.arrays import FloatArray
from fedcert.evaluation.clients import scorers
from fedcert.scenarios import Scenario

__all__ = ["errors_elsewhere"]

# Of each of the others so many test examples say enough.
_OF_EACH = 100


def errors_elsewhere(
    adapters: Mapping[str, FloatArray], model: AdaptedModel, scenario: Scenario
) -> dict[str, float]:
    """Return each client's mean error on the tests of the others.

    Parameters
    ----------
    adapters : Mapping
        What each new client exported, by its id. One that moves the embeddings of its own
        labels' names says nothing about other labels, and is left out.
    model : AdaptedModel
        The base model in the adapters' space.
    scenario : Scenario
        Holds these clients' test examples.

    Returns
    -------
    dict
        By client; empty without test examples, or others.
    """
    names = [name for name in adapters if len(adapters[name]) == model.space.dimension]
    if not names:
        return {}
    stacked, found = np.stack([adapters[name] for name in names]), defaultdict(list)
    for other, scorer in scorers(model, scenario, [*adapters], margin_tolerance=0.0):
        examples = scenario.test_examples(other)
        if examples is None:
            continue
        tests = examples.take(slice(0, _OF_EACH))
        for name, error in zip(
            names, scorer.score(stacked, tests).wrong.mean(axis=1), strict=True
        ):
            if name != other:
                found[name].append(float(error))
    return {name: float(np.mean(errors)) for name, errors in found.items()}
