"""Membership inference against everything that a prior publishes.

An attacker who holds a bundle and some adapter asks: was it in the pool? The bundle gives
means, scales, principal directions and samples at will, and with more coordinates than
adapters the directions alone can tell. Attacked are the adapters of the pool and adapters
that touched nothing: neither fit, nor selection, nor screening.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri

from fedcert.arrays import FloatArray
from fedcert.priors.base import Prior
from fedcert.priors.latent import LatentSpace
from fedcert.priors.memorization import nearest_distances

__all__ = ["Attack", "MembershipAudit", "attack_scores", "auc_interval", "audit_membership"]

_SAMPLES = 1000
# Below so many adapters the limits, which rest on a normal approximation, mean nothing.
_FEWEST = 8


@dataclass(frozen=True)
class Attack:
    """How well one score tells members from non-members.

    Attributes
    ----------
    name : str
        What is scored.
    advantage : float
        2 AUC - 1 (Somers' D). No threshold on the score, randomized or not, has a larger
        true-positive rate minus false-positive rate, as long as the ROC curve is concave.
    lower, upper : float
        Confidence limits of the advantage.
    """

    name: str
    advantage: float
    lower: float
    upper: float


@dataclass(frozen=True)
class MembershipAudit:
    """All attacks on one prior.

    Attributes
    ----------
    attacks : tuple of Attack
        The limits hold for all of them at once.
    members, non_members : int
        Adapters attacked.
    confidence : float
        One-sided confidence of the limits.
    limit : float
        The largest upper limit that passes.
    """

    attacks: tuple[Attack, ...]
    members: int
    non_members: int
    confidence: float
    limit: float

    @property
    def worst(self) -> Attack:
        """The attack with the highest upper limit."""
        return max(self.attacks, key=lambda attack: attack.upper)

    @property
    def decidable(self) -> bool:
        """Whether an attack that is no better than guessing would pass: else too few."""
        if min(self.members, self.non_members) < _FEWEST:
            return False
        _, upper = auc_interval(
            0.5, self.members, self.non_members, _each(self.confidence, len(self.attacks))
        )
        return 2 * upper - 1 <= self.limit

    @property
    def passed(self) -> bool:
        """Whether the upper limit of every attack is within the limit."""
        return self.worst.upper <= self.limit


def audit_membership(
    prior: Prior,
    *,
    members: FloatArray,
    non_members: FloatArray,
    seed: str,
    limit: float = 0.9,
    confidence: float = 0.95,
) -> MembershipAudit:
    """Attack a prior with every score, and bound the advantage of each.

    Parameters
    ----------
    prior : Prior
        Fitted to `members`.
    members, non_members : numpy.ndarray
        Shapes ``(N, d)`` and ``(H, d)``, with H >= 1. Non-members must have touched nothing.
    seed : str
        256 bits in hexadecimal, of the samples that the attacker draws.
    limit : float (default: 0.9)
        The largest upper confidence limit of the advantage that passes.
    confidence : float (default: 0.95)
        One-sided, for all attacks together (Bonferroni).

    Returns
    -------
    MembershipAudit
        Each attack's advantage with its upper confidence limit.
    """
    samples = prior.sample(seed, count=_SAMPLES)
    known = attack_scores(prior, members, samples)
    fresh = attack_scores(prior, non_members, samples)
    level = _each(confidence, len(known))
    attacks = []
    for name, scores in known.items():
        area = _auc(scores, fresh[name])
        lower, upper = auc_interval(area, len(members), len(non_members), level)
        attacks.append(Attack(name, 2 * area - 1, 2 * lower - 1, 2 * upper - 1))
    return MembershipAudit(tuple(attacks), len(members), len(non_members), confidence, limit)


def attack_scores(
    prior: Prior, adapters: FloatArray, samples: FloatArray
) -> dict[str, FloatArray]:
    """Score adapters by what a prior publishes; a higher score says "member".

    Parameters
    ----------
    prior : Prior
        What is attacked.
    adapters : numpy.ndarray
        The adapters to score, shape ``(N, d)``.
    samples : numpy.ndarray
        Draws of the prior, shape ``(S, d)``.

    Returns
    -------
    dict
        By attack: the distance to the nearest sample; where the prior publishes a latent
        space also the distance from its mean, the part off its directions, and the density
        of the Gaussian that it describes; where it publishes points, the nearest of those.
    """
    published = prior.tensors()
    if "latent.mean" not in published:
        scale = np.maximum(samples.std(axis=0), 1e-12)
        return {"nearest sample": -nearest_distances(adapters / scale, samples / scale)}
    latent = LatentSpace.from_tensors(published)
    latents = latent.encode(adapters)
    standard = (adapters - latent.mean) / latent.scale
    total = np.sum(standard**2, axis=1)
    along = np.sum((latents * latent.std) ** 2, axis=1)
    residual = np.maximum(total - along, 0.0)
    # A standardized pool has variance one per coordinate: what the directions leave is known.
    left = max(latent.dimension - float(np.sum(latent.std**2)), 1e-9)
    variance = left / max(latent.dimension - latent.size, 1)
    scores = {
        "nearest sample": -nearest_distances(latents, latent.encode(samples)),
        "distance from the mean": -total,
        "part off the directions": -residual,
        "Gaussian density": -np.sum(latents**2, axis=1) - residual / variance,
    }
    if "centers" in published:
        scores["nearest published point"] = -nearest_distances(latents, published["centers"])
    return scores


def auc_interval(
    area: float, members: int, non_members: int, confidence: float
) -> tuple[float, float]:
    """Bound an area under the ROC curve on each side with the given confidence.

    The score interval of Newcombe (Statistics in Medicine 25, 2006, method 5) with the
    variance of Hanley and McNeil; unlike Wald intervals it does not collapse at 0 or 1.

    Parameters
    ----------
    area : float
        The area that was measured, in [0, 1].
    members : int
        Number of members.
    non_members : int
        Number of non-members.
    confidence : float
        One-sided confidence of each end.

    Returns
    -------
    tuple
        Lower and upper limit.
    """
    z = float(ndtri(confidence))
    effective = (members + non_members) / 2 - 1

    def excess(value: float) -> float:
        spread = 1 + effective * ((1 - value) / (2 - value) + value / (1 + value))
        variance = value * (1 - value) * spread / (members * non_members)
        return (area - value) ** 2 - z**2 * variance

    # At 0 and 1 the variance vanishes, and `excess` with it.
    inner = min(max(area, 1e-12), 1 - 1e-12)
    lower = float(brentq(excess, 0.0, inner)) if area > 0 else 0.0
    upper = float(brentq(excess, inner, 1.0)) if area < 1 else 1.0
    return lower, upper


def _auc(members: FloatArray, non_members: FloatArray) -> float:
    """Return the probability that a member scores higher, ties counting half."""
    ordered = np.sort(non_members)
    below = np.searchsorted(ordered, members, side="left")
    up_to = np.searchsorted(ordered, members, side="right")
    return float(np.mean(below + up_to) / (2 * len(non_members)))


def _each(confidence: float, attacks: int) -> float:
    """Split the allowed error over the attacks."""
    return 1 - (1 - confidence) / attacks
