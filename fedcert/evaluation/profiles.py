"""How good the best of M candidates is on new clients' tasks: priors beside each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcert.adapters.forward import AdaptedModel
from fedcert.arrays import FloatArray
from fedcert.canonical import digest_tensors
from fedcert.errors import PriorError
from fedcert.evaluation.clients import scorers
from fedcert.priors import PRIORS, Prior, best_of
from fedcert.randomness import derive_seed, small_seed
from fedcert.scenarios import Scenario

__all__ = ["client_risks", "fit_baselines", "inputs_digest", "risk_curves"]


def fit_baselines(prior: Prior, fitted_on: FloatArray, *, seed: int) -> dict[str, Prior]:
    """Fit every other kind of prior to the same adapters; return all by kind.

    Parameters
    ----------
    prior : Prior
        A fitted prior.
    fitted_on : numpy.ndarray
        The adapters that it was fitted to, shape ``(N, d)``.
    seed : int
        Draws what the fits draw.

    Returns
    -------
    dict
        Priors by kind, the given one first; without those that take more adapters.
    """
    found = {prior.kind: prior}
    for kind, variant in PRIORS.items():
        if kind != prior.kind:
            # Some kinds take more adapters than a small federation has.
            with suppress(PriorError):
                found[kind] = variant.fit(fitted_on, seed=small_seed("prior", seed))
    return found


def risk_curves(
    priors: dict[str, Prior],
    model: AdaptedModel,
    scenario: Scenario,
    *,
    candidates: int,
    seed: int,
    clients: Sequence[str],
    on_step: Callable[[int], None] = lambda _count: None,
) -> list[dict[str, Any]]:
    """Measure best-of-M risk on the new clients' tasks, for each prior at equal M.

    All priors get the same noise seed.

    Parameters
    ----------
    priors : dict
        The priors to compare, by kind.
    model : AdaptedModel
        The base model in the adapters' space.
    scenario : Scenario
        Holds the new clients' tasks.
    candidates : int
        The largest M.
    seed : int
        Draws the candidates.
    clients : sequence of str
        Whose tasks; those without test examples are left out.
    on_step : callable, optional
        Called with the number of steps that were done since the last call.

    Returns
    -------
    list of dict
        ``{"prior": kind, "best_of": [{"m", "risk", "se"}, ...]}``; empty without test data.
    """
    counts = sorted({m for m in (1, 3, 10, 30, 100, 300, 1000, 3000) if m < candidates}
                    | {candidates})  # fmt: skip
    curves = []
    for kind, prior in priors.items():
        vectors = prior.sample(derive_seed("risk profile", seed), count=candidates)
        risks = client_risks(model, scenario, vectors, counts, clients=clients)
        if not len(risks):
            return []
        error = (
            risks.std(axis=0, ddof=1) / len(risks) ** 0.5 if len(risks) > 1 else 0 * risks[0]
        )
        rows = zip(counts, risks.mean(axis=0), error, strict=True)
        curves.append(
            {
                "prior": kind,
                "best_of": [{"m": m, "risk": float(r), "se": float(e)} for m, r, e in rows],
            }
        )
        on_step(1)
    return curves


def client_risks(
    model: AdaptedModel,
    scenario: Scenario,
    vectors: FloatArray,
    counts: list[int],
    *,
    clients: Sequence[str],
) -> FloatArray:
    """Estimate the risk of the best of the first M candidates for each new client.

    Parameters
    ----------
    model : AdaptedModel
        The task's model.
    scenario : Scenario
        Gives the clients' test examples.
    vectors : numpy.ndarray
        Candidates, shape ``(M, d)``.
    counts : list of int
        Values of M, at most ``len(vectors)``.
    clients : sequence of str
        Whose tasks; those without test examples are left out.

    Returns
    -------
    numpy.ndarray
        Float64, shape ``(clients, len(counts))``; see `best_of`.
    """
    shared: dict[tuple[str, tuple[str, ...]], npt.NDArray[np.int64]] = {}
    risks = []
    for client, scorer in scorers(model, scenario, clients, margin_tolerance=0.0):
        examples = scenario.test_examples(client)
        if examples is None:
            continue
        # Clients with the same test inputs and labels share predictions.
        key = inputs_digest(examples.inputs), scenario.labels_of(client)
        if key not in shared:
            shared[key] = scorer.predict(vectors, examples.inputs)
        risks.append(best_of(shared[key] != examples.labels, counts))
    return np.array(risks).reshape(-1, len(counts))


def inputs_digest(inputs: npt.NDArray[Any]) -> str:
    """Return what tells arrays of inputs apart, texts included."""
    return digest_tensors({"inputs": inputs.astype(str) if inputs.dtype == object else inputs})
