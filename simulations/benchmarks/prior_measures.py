"""What every benchmark of a prior reports: best-of-M risk and the mean certificate."""

from __future__ import annotations

from typing import Any

from fedcert.evaluation.by_size import bounds_by_size
from fedcert.evaluation.profiles import risk_curves
from fedcert.priors import Prior
from fedcert.simulations.benchmarks.federations import Federation

__all__ = ["CANDIDATES", "NEW", "SEED", "measure_prior"]

CANDIDATES = 1000
# The screening was developed on seed 0.
SEED, NEW = 1, 20
"""Of the federation on which robustness, privacy, and mixed ranks are measured."""
_SUPPORT, _RECIPE = 64, "split"


def measure_prior(federation: Federation, prior: Prior) -> dict[str, Any]:
    """Measure a prior on the new clients of a federation, none of which it has seen.

    Returns
    -------
    dict
        ``{"m", "risk", "se", "n", "certificate"}``: risk of the best of 1,000 candidates
        with its standard error over clients, and the mean bound of a half split of 64
        examples.
    """
    scenario, settings = federation.scenario, federation.settings
    (curve,) = risk_curves(
        {prior.kind: prior},
        federation.model,
        scenario,
        candidates=CANDIDATES,
        seed=settings.seed,
        clients=scenario.new_clients,
    )
    bounds = bounds_by_size(
        prior,
        federation.model,
        scenario,
        bundle_digest=prior.digest,
        candidates=CANDIDATES,
        delta=settings.certificate.delta,
        largest=_SUPPORT,
        clients=scenario.new_clients,
    )
    (bound,) = [b for b in bounds if (b["recipe"], b["n"]) == (_RECIPE, _SUPPORT)]
    return {**curve["best_of"][-1], "n": _SUPPORT, "certificate": bound["bound"]}
