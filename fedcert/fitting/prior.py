"""Fitting the prior to a pool, with adapters held out for the audits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedcert.arrays import FloatArray
from fedcert.errors import PriorError
from fedcert.pool.robustness import Screening, screen_pool
from fedcert.priors import (
    PRIORS,
    DiffusionPrior,
    GaussianPrior,
    NearestPoolAudit,
    Prior,
    audit_nearest_pool,
)
from fedcert.priors.membership import MembershipAudit, audit_membership
from fedcert.randomness import derive_seed, keyed_generator, small_seed
from fedcert.settings.sections import SMALLEST_FIT, PriorSettings

__all__ = [
    "FittedPrior",
    "audit_again",
    "audit_prior",
    "fit_prior",
]

_Rows = npt.NDArray[np.int64]


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
    membership : MembershipAudit
        Whether what it publishes tells who was in the pool.
    screening : Screening
        Which uploads neither fit nor audits used, by row of the pool.
    instead_of : FittedPrior or None
        The prior that was asked for and did not pass.
    asked : str
        The kind that was asked for and takes more adapters than there are; else empty.
    """

    prior: Prior
    fitted_on: FloatArray
    held_out: FloatArray
    audit: NearestPoolAudit
    membership: MembershipAudit
    screening: Screening
    instead_of: FittedPrior | None = None
    asked: str = ""

    @property
    def complaints(self) -> tuple[str, ...]:
        """What the audits found wrong, a clause each."""
        found = []
        if not self.audit.passed:
            found.append(
                f"its samples lie at {self.audit.ratio:.2f} times the distance of held-out "
                f"adapters from the pool (limit {self.audit.threshold:g}), so it may replay "
                "clients' adapters"
            )
        if self.membership.decidable and not self.membership.passed:
            attack = self.membership.worst
            found.append(
                f"the attack by {attack.name!r} tells who was in the pool with an advantage of "
                f"{attack.advantage:.2f}, and up to {attack.upper:.2f} for all that "
                f"{self.membership.non_members} held-out adapters can say (limit "
                f"{self.membership.limit:g})"
            )
        return tuple(found)

    @property
    def remedy(self) -> str:
        """What to do about `complaints`, a clause; empty if there are none."""
        membership = self.membership
        if not self.complaints:
            return ""
        if not membership.decidable or membership.passed:
            return "gather more adapters or choose another prior"
        attack = membership.worst
        if attack.advantage <= membership.limit:
            return (
                "more adapters, or a larger prior.audit_share, would say whether the attack "
                "works as well as it may"
            )
        return (
            f"given a member's adapter and another, the attack picks the member's "
            f"{(1 + attack.advantage) / 2:.0%} of the time; adapters with fewer coordinates "
            "(labels by name, a lower adapter.rank) or more clients make it harder, and "
            "privacy.central_epsilon bounds it (docs/privacy.md)"
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What whoever runs the server must know, a sentence each."""
        said = [f"WARNING: {self.screening.summary}"] if self.screening.dropped else []
        if self.instead_of is not None:
            said.append(
                f"WARNING: the {self.instead_of.prior.kind} prior does not pass its audits: "
                f"{_listed(self.instead_of.complaints)}; the {self.prior.kind} prior takes its "
                "place"
            )
        if self.complaints:
            said.append(
                f"WARNING: the {self.prior.kind} prior does not pass its audits: "
                f"{_listed(self.complaints)}; {self.remedy}"
            )
        return tuple(said)

    @property
    def choice(self) -> str:
        """Say in a sentence what was chosen and why."""
        count, width = len(self.fitted_on), self.prior.noise_width
        text = f"{self.prior.kind} prior on {count} adapters"
        if self.asked:
            text += f", since the {self.asked} prior takes {SMALLEST_FIT}"
        if self.instead_of is not None:
            kind = self.instead_of.prior.kind
            return f"{text}, since the {kind} prior does not pass: " + _listed(
                self.instead_of.complaints
            )
        if isinstance(self.prior, DiffusionPrior):
            report = self.prior.report
            text += f", {width} latent directions (found from the spectrum)"
            if report.best_step == 0:
                return text + "; training did not beat the Gaussian on held-out folds: Gaussian"
            return text + (
                f"; stopped at step {report.best_step} by the loss on held-out folds "
                f"({report.best_loss:.3f} against {report.anchor_loss:.3f} of the Gaussian)"
            )
        return text

    def notes(self) -> dict[str, Any]:
        """Return what a bundle says about its prior: a JSON object."""
        attack, membership = self.membership.worst, self.membership
        return {
            "choice": self.choice,
            "pool": len(self.screening.kept) + len(self.screening.dropped),
            "left_out": self.screening.reasons,
            "nearest_pool_ratio": round(self.audit.ratio, 6),
            "nearest_pool_threshold": self.audit.threshold,
            "nearest_pool_passed": self.audit.passed,
            "replication_p_value": float(f"{self.audit.replication.p_value:.3g}"),
            "membership_attack": attack.name,
            "membership_advantage": round(attack.advantage, 6),
            "membership_upper_limit": round(attack.upper, 6),
            "membership_threshold": membership.limit,
            # With too few held-out adapters nobody can say.
            "membership_passed": membership.passed if membership.decidable else None,
        }


def fit_prior(
    pool: FloatArray,
    *,
    settings: PriorSettings,
    seed: int,
    on_step: Callable[[int, int], None] = lambda _done, _all: None,
    device: torch.device | None = None,
) -> FittedPrior:
    """Fit the prior that the settings name, and audit it.

    Parameters
    ----------
    pool : numpy.ndarray
        Uploads, shape ``(N, d)``.
    settings : PriorSettings
        What to fit, and what it must pass.
    seed : int
        Draws the split, the fit, and the audits.
    on_step : callable
        Told (steps done, steps at most) now and then.
    device : torch.device, optional
        Where a diffusion prior is trained; by default on the CPU.

    Returns
    -------
    FittedPrior
        The prior with its audits; another kind of prior if the settings ask for a fallback.

    Raises
    ------
    PriorError
        If the pool is too small, or an audit fails and the settings make that an error.
    """
    fitted_on, held_out, screening = _parts(pool, settings, seed)

    def fitted(kind: str) -> FittedPrior:
        prior = _fit(
            kind, fitted_on, seed=small_seed("prior", seed), on_step=on_step, device=device
        )
        return _audited(prior, fitted_on, held_out, screening, settings, seed)

    if len(fitted_on) < SMALLEST_FIT and settings.kind == DiffusionPrior.kind:
        return replace(fitted(GaussianPrior.kind), asked=settings.kind)
    chosen = fitted(settings.kind)
    if settings.on_memorization == "fail":
        _require_passed(chosen)
    kind = GaussianPrior.kind
    if chosen.complaints and settings.on_memorization == "fallback" and settings.kind != kind:
        other = fitted(kind)
        # What both publish alike, such as the directions, is no reason to change.
        if len(other.complaints) < len(chosen.complaints):
            return replace(other, instead_of=chosen)
    return chosen


def audit_again(
    prior: Prior, pool: FloatArray, *, settings: PriorSettings, seed: int
) -> FittedPrior:
    """Return the evidence about a prior that `fit_prior` made, without fitting it anew.

    Parameters
    ----------
    prior : Prior
        The prior that it returned.
    pool, settings, seed
        The arguments that it was given.

    Returns
    -------
    FittedPrior
        The same prior with its audits.
    """
    return _audited(prior, *_parts(pool, settings, seed), settings, seed)


def _parts(
    pool: FloatArray, settings: PriorSettings, seed: int
) -> tuple[FloatArray, FloatArray, Screening]:
    """Split a pool into what the fit sees and what it does not, without what is screened."""
    fit, held = _split_rows(len(pool), held=settings.held_out(len(pool)), seed=seed)
    screening = Screening(np.arange(len(pool)), {})
    if settings.robust:
        fit, held, screening = _screened(pool, fit, held)
    return pool[fit], pool[held], screening


def _split_rows(count: int, *, held: int, seed: int) -> tuple[_Rows, _Rows]:
    order = keyed_generator("audit split", seed).permutation(count)
    return np.sort(order[held:]), np.sort(order[:held])


def _screened(pool: FloatArray, fit: _Rows, held: _Rows) -> tuple[_Rows, _Rows, Screening]:
    """Leave hostile uploads out of both parts.

    What the fit sees is decided without the held-out part, which must touch nothing; the
    held-out part is then judged beside it.
    """
    first = screen_pool(pool[fit])
    dropped = {int(fit[row]): reason for row, reason in first.dropped.items()}
    fit = fit[first.kept]
    second = screen_pool(pool[np.concatenate([fit, held])])
    late = {row - len(fit): reason for row, reason in second.dropped.items() if row >= len(fit)}
    # Without any the audits would have nothing to compare with.
    if len(late) < len(held):
        dropped |= {int(held[row]): reason for row, reason in late.items()}
        held = np.delete(held, list(late))
    kept = np.sort(np.concatenate([fit, held]))
    return fit, held, Screening(kept, dict(sorted(dropped.items())))


def _fit(
    kind: str,
    pool: FloatArray,
    *,
    seed: int,
    on_step: Callable[[int, int], None],
    device: torch.device | None,
) -> Prior:
    if kind == DiffusionPrior.kind:
        return DiffusionPrior.fit(pool, seed=seed, on_step=on_step, device=device)
    return PRIORS[kind].fit(pool, seed=seed)


def _audited(
    prior: Prior,
    fitted_on: FloatArray,
    held_out: FloatArray,
    screening: Screening,
    settings: PriorSettings,
    seed: int,
) -> FittedPrior:
    audit = audit_nearest_pool(
        prior,
        pool=fitted_on,
        held_out=held_out,
        seed=derive_seed("audit", seed),
        threshold=settings.smallest_ratio,
    )
    membership = audit_membership(
        prior,
        members=fitted_on,
        non_members=held_out,
        seed=derive_seed("membership audit", seed),
        limit=settings.largest_advantage,
    )
    return FittedPrior(prior, fitted_on, held_out, audit, membership, screening)


def audit_prior(
    prior: Prior,
    *,
    fitted_on: FloatArray,
    held_out: FloatArray,
    settings: PriorSettings,
    seed: int,
) -> FittedPrior:
    """Audit a prior that was fitted elsewhere, given the adapters it was fitted to.

    Parameters
    ----------
    prior : Prior
        The fitted prior.
    fitted_on : numpy.ndarray
        Adapters that the fit saw, shape ``(N, d)``.
    held_out : numpy.ndarray
        Adapters that it did not, shape ``(H, d)``.
    settings : PriorSettings
        The audits' thresholds.
    seed : int
        Draws the samples that the audits look at.

    Returns
    -------
    FittedPrior
        The prior with its audits; nothing is screened.
    """
    screening = Screening(np.arange(len(fitted_on) + len(held_out)), {})
    return _audited(prior, fitted_on, held_out, screening, settings, seed)


def _require_passed(fitted: FittedPrior) -> None:
    """Raise `PriorError` unless every audit passes."""
    kind, membership = fitted.prior.kind, fitted.membership
    if fitted.complaints:
        raise PriorError(
            f"the {kind} prior does not pass its audits: {_listed(fitted.complaints)}; "
            f"{fitted.remedy}"
        )
    if not membership.decidable:
        raise PriorError(
            f"{membership.non_members} held-out adapters are too few to show that the {kind} "
            f"prior does not tell who was in the pool (limit {membership.limit:g}); gather "
            "more adapters, or raise prior.audit_share or prior.largest_advantage"
        )


def _listed(clauses: tuple[str, ...]) -> str:
    return "; ".join(clauses)
