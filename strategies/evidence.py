"""What a run can tell about its prior: what the server knows, or in simulations more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from fedcert.arrays import FloatArray
from fedcert.bundles.versions import BundleVersions
from fedcert.fitting import FittedPrior, audit_again, audit_prior
from fedcert.pool import Pool
from fedcert.priors import LatentSpace, Prior
from fedcert.randomness import derive_seed
from fedcert.settings import RunSettings
from fedcert.strategies.federated_prior import FederatedSource
from fedcert.strategies.serving import ServedRun

__all__ = ["describe_prior", "evidence_of", "prior_section"]


def evidence_of(outcome: ServedRun, settings: RunSettings, output: Path) -> FittedPrior | None:
    """Return the prior with the adapters behind it, and audits.

    If the bundle of an earlier run served, the pool is audited again as it was then. After a
    federated fit the server has no evidence. A simulation can look into its virtual
    clients' folders: the clients that the prior was fitted to are the members, and the judges,
    who said when to stop and nothing else, stand in for adapters that touched nothing.

    Parameters
    ----------
    outcome : ServedRun
        What the server's side of the run returned.
    settings : RunSettings
        Settings of the run.
    output : Path
        The run folder.

    Returns
    -------
    FittedPrior or None
        The prior with its audits; None where nobody shows the adapters behind it.
    """
    if outcome.fitted is not None:
        return outcome.fitted
    if settings.mean_privacy() is not None:
        return None  # the report of such a run shows no adapter either
    strategy = outcome.strategy
    source = strategy.source
    if settings.method != "prior":
        return None  # nothing is drawn that could be audited
    if not isinstance(source, FederatedSource):
        return _of_an_earlier_run(outcome, outcome.bundle.prior, settings, output)
    adapters = _kept_adapters(outcome, output)
    judges = sorted(adapters.keys() & source.judges)
    members = sorted(adapters.keys() - source.judges)
    if not judges or not members:
        return None
    return audit_prior(
        outcome.bundle.prior,
        fitted_on=np.array([adapters[client] for client in members]),
        held_out=np.array([adapters[client] for client in judges]),
        settings=settings.prior,
        seed=settings.seed,
    )


def _of_an_earlier_run(
    outcome: ServedRun, prior: Prior, settings: RunSettings, output: Path
) -> FittedPrior:
    latest = BundleVersions(output).latest()
    assert latest is not None  # it served
    pool = Pool(output / "pool", outcome.space).matrix(latest[1].clients)
    return audit_again(prior, pool, settings=settings.prior, seed=settings.seed)


def describe_prior(outcome: ServedRun, evidence: FittedPrior | None) -> str:
    """Say in a sentence or two how the prior came about."""
    bundle = outcome.bundle
    choice = str(bundle.notes["choice"])
    if isinstance(outcome.strategy.source, FederatedSource):
        if evidence is None:
            return f"{choice}. The server saw no adapter"
        return (
            f"{choice}, on the sums of {len(evidence.fitted_on)} clients. The "
            "server saw no adapter; the simulation looked at them for this report"
        )
    if "residual_mean" not in bundle.notes:
        return choice
    return (
        f"{choice}. "
        f"{bundle.notes['projected_uploads']} uploads were projected from "
        f"LoRA adapters, which lost {bundle.notes['residual_mean']:.1%} of their squared norm "
        f"on average and {bundle.notes['residual_worst']:.1%} at worst"
    )


def prior_section(
    outcome: ServedRun, fitted: FittedPrior | None, settings: RunSettings
) -> dict[str, Any]:
    """Return what a report shows of the prior.

    Parameters
    ----------
    outcome : ServedRun
        What the server's side of the run returned.
    fitted : FittedPrior or None
        The prior with its audits, if there is evidence of it.
    settings : RunSettings
        Settings of the run.

    Returns
    -------
    dict
        A JSON object.
    """
    prior = outcome.bundle.prior
    found: dict[str, Any] = {
        "kind": prior.kind,
        "adapter_dimension": prior.dimension,
        "latent_dimension": prior.noise_width,
        "choice": describe_prior(outcome, fitted),
    }
    if fitted is None:
        return found
    plane = LatentSpace.of(fitted.fitted_on, size=2)
    samples = prior.sample(derive_seed("report", settings.seed), count=200)
    audit = fitted.audit
    return found | {
        "pool_size": len(fitted.fitted_on) + len(fitted.held_out),
        "projection": {
            "pool": plane.encode(fitted.fitted_on).tolist(),
            "held_out": plane.encode(fitted.held_out).tolist(),
            "samples": plane.encode(samples).tolist(),
        },
        "nearest": {
            "samples": list(audit.samples),
            "held_out": list(audit.held_out),
            "ratio": audit.ratio,
            "threshold": audit.threshold,
            "passed": audit.passed,
        },
    }


def _kept_adapters(outcome: ServedRun, output: Path) -> dict[str, FloatArray]:
    failed = {failure.client for failure in outcome.strategy.failures}
    kept = {}
    for client in outcome.scenario.upstream_clients:
        files = sorted((output / "clients" / client / "federated").glob("*.safetensors"))
        if files and client not in failed:
            kept[client] = load_file(files[-1])["adapter"].astype(np.float64)
    return kept
