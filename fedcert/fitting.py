"""Fitting the prior to a pool, with adapters held out for the audit, and making the bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedcert.adapters.space import AdapterSpace
from fedcert.bundle import Bundle
from fedcert.data.inputs import InputSpec
from fedcert.errors import PriorError
from fedcert.models.base import BaseModel
from fedcert.priors import (
    PRIORS,
    DiffusionPrior,
    NearestPoolAudit,
    Prior,
    audit_nearest_pool,
)
from fedcert.priors.base import FloatArray
from fedcert.randomness import derive_seed, keyed_generator, small_seed
from fedcert.settings import PriorSettings, RunSettings

__all__ = ["FittedPrior", "fit_prior", "make_bundle", "split_pool"]


@dataclass(frozen=True)
class FittedPrior:
    """A prior with the evidence about it.

    Attributes
    ----------
    prior : Prior
        Fitted to `fitted_on`.
    fitted_on, held_out : numpy.ndarray
        Adapters ``(N, d)`` that the fit saw, and ``(H, d)`` that it did not.
    audit : NearestPoolAudit
        Whether the prior replays its pool.
    """

    prior: Prior
    fitted_on: FloatArray
    held_out: FloatArray
    audit: NearestPoolAudit

    @property
    def choice(self) -> str:
        """Say in a sentence what was chosen and why."""
        count, width = len(self.fitted_on), self.prior.noise_width
        text = f"{self.prior.kind} prior on {count} adapters"
        if isinstance(self.prior, DiffusionPrior):
            report = self.prior.report
            text += f", {width} latent directions (largest gap of the spectrum)"
            if report.best_step == 0:
                return text + "; training did not beat the Gaussian on held-out folds: Gaussian"
            return text + (
                f"; stopped at step {report.best_step} by the loss on held-out folds "
                f"({report.best_loss:.3f} against {report.anchor_loss:.3f} of the Gaussian)"
            )
        return text


def split_pool(pool: FloatArray, *, held: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Split a pool into what the fit may see and the `held` that the audit keeps back."""
    order = keyed_generator("audit split", seed).permutation(len(pool))
    return pool[np.sort(order[held:])], pool[np.sort(order[:held])]


def fit_prior(
    pool: FloatArray,
    *,
    settings: PriorSettings,
    seed: int,
    on_step: Callable[[int, int], None] = lambda _done, _all: None,
) -> FittedPrior:
    """Fit the prior that the settings name, and audit it.

    Raises
    ------
    PriorError
        If the pool is too small, or the audit fails and the settings make that an error.
    """
    fitted_on, held_out = split_pool(pool, held=settings.held_out(len(pool)), seed=seed)
    fit_seed = small_seed("prior", seed)
    if settings.kind == DiffusionPrior.kind:
        prior: Prior = DiffusionPrior.fit(fitted_on, seed=fit_seed, on_step=on_step)
    else:
        prior = PRIORS[settings.kind].fit(fitted_on, seed=fit_seed)
    audit = audit_nearest_pool(
        prior,
        pool=fitted_on,
        held_out=held_out,
        seed=derive_seed("audit", seed),
        threshold=settings.smallest_ratio,
    )
    if not audit.passed and settings.on_memorization == "fail":
        raise PriorError(
            f"the {prior.kind} prior replays its pool: samples come {audit.ratio:.2f} times "
            f"as near as held-out adapters, below the limit of {audit.threshold:g}; "
            "gather more adapters or choose another prior"
        )
    return FittedPrior(prior, fitted_on, held_out, audit)


def make_bundle(
    fitted: FittedPrior,
    *,
    base: BaseModel,
    space: AdapterSpace,
    inputs: InputSpec,
    labels: tuple[str, ...],
    settings: RunSettings,
) -> Bundle:
    """Put together what devices download."""
    audit = fitted.audit
    local = Path(base.name).exists()
    return Bundle(
        # A local path means nothing on another machine; the digest is the identity.
        base_name=Path(base.name).name if local else base.name,
        base_revision=base.revision,
        base_digest=base.digest,
        space=space,
        prior=fitted.prior,
        inputs=inputs,
        labels=labels,
        recipes=settings.recipe_table(),
        notes={
            "choice": fitted.choice,
            "pool": len(fitted.fitted_on) + len(fitted.held_out),
            "nearest_pool_ratio": round(audit.ratio, 6),
            "nearest_pool_threshold": audit.threshold,
            "nearest_pool_passed": audit.passed,
            "privacy": "no formal privacy: prior and directions were fitted to plain uploads",
        },
    )
