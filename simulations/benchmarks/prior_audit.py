"""Whether priors replay their pool or tell who was in it, by pool size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedcert.arrays import FloatArray
from fedcert.fitting import audit_prior
from fedcert.priors import PRIORS
from fedcert.randomness import keyed_generator, small_seed
from fedcert.settings.sections import PriorSettings

__all__ = ["audit_rows"]


def audit_rows(
    scenario: str,
    pool: FloatArray,
    *,
    sizes: Sequence[int] = (32, 128, 512),
    kinds: Sequence[str] = tuple(PRIORS),
    held_out: int = 64,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Fit every kind of prior to pools of every size, and audit each.

    Parameters
    ----------
    scenario : str
        Its name, for the rows.
    pool : numpy.ndarray
        Adapters of different clients, shape ``(N, d)``.
    sizes : sequence of int
        How many adapters to fit; what the pool does not have is cut down to what it has.
    kinds : sequence of str
        Some of `fedcert.priors.PRIORS`.
    held_out : int (default: 64)
        Adapters that touch nothing, the same for all fits; a quarter of the pool at most.
    seed : int (default: 0)
        Draws the split, the fits, and the audits.

    Returns
    -------
    list of dict
        ``{"scenario", "pool", "prior", "nn_ratio", "replication_p", "mia_attack",
        "mia_advantage", "mia_upper", "passed"}``: ratio of nearest-pool distances, samples to
        held-out; p-value of the replication test; the worst attack's advantage with its upper
        95% limit; and whether both audits pass at the default thresholds.
    """
    order = keyed_generator("audit rows", seed).permutation(len(pool))
    held = max(1, min(held_out, len(pool) // 4))
    fresh, rest = pool[order[:held]], pool[order[held:]]
    rows = []
    for size in sorted({min(size, len(rest)) for size in sizes}):
        for kind in kinds:
            prior = PRIORS[kind].fit(rest[:size], seed=small_seed("prior", seed))
            audited = audit_prior(
                prior,
                fitted_on=rest[:size],
                held_out=fresh,
                settings=PriorSettings(),
                seed=seed,
            )
            nearest, membership = audited.audit, audited.membership
            rows.append(
                {
                    "scenario": scenario,
                    "pool": size,
                    "prior": kind,
                    "nn_ratio": nearest.ratio,
                    "replication_p": nearest.replication.p_value,
                    "mia_attack": membership.worst.name,
                    "mia_advantage": membership.worst.advantage,
                    "mia_upper": membership.worst.upper,
                    "passed": nearest.passed and membership.passed,
                }
            )
    return rows
