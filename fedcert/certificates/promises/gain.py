"""Gain: by how much an adapter is right more often than one of no client's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self, cast, get_args

from fedcert.certificates.bounds import GRID, binomial_upper_bound
from fedcert.certificates.promises.base import Ground, Outcome, Promise, register_promise
from fedcert.certificates.promises.evidence import Evidence, Rival
from fedcert.certificates.promises.limits import lower_limit
from fedcert.errors import CertificateError

__all__ = ["GainOutcome", "GainPromise"]

_RIVALS: dict[Rival, str] = {
    "default": "the federation's default adapter",
    "base": "the base model without an adapter",
}


@dataclass(frozen=True, kw_only=True)
class GainOutcome(Outcome):
    """What was counted in pairs, and what follows.

    Parameters
    ----------
    won : int
        Certifying examples on which the adapter is right, and the rival wrong.
    lost : int
        Certifying examples on which it is the other way around.
    at_least : float
        Lower limit of the gain in accuracy, from -1 to 1: P(right) minus the rival's.
    """

    kind: ClassVar[str] = "gain"
    figures: ClassVar[tuple[str, ...]] = ("at_least",)

    won: int
    lost: int
    at_least: float

    def row(self) -> str:
        """Return the outcome in a few words."""
        helps = "helps" if self.at_least > 0 else "is not shown to help"
        return (
            f"personalizing {helps}: accuracy changes by at least {self.at_least:+.6f} "
            f"({self.won} won, {self.lost} lost)"
        )


@register_promise
@dataclass(frozen=True, kw_only=True)
class GainPromise(Promise[GainOutcome]):
    """Bound from below by how much the adapter is right more often than a rival.

    The difference of two accuracies is the probability of winning an example minus that of
    losing one. Both are binomial on the same examples; the first is bounded from below, the
    second from above, each at half of the budget. Examples on which both agree cost nothing.

    Parameters
    ----------
    over : str
        ``"default"``, the center of the bundle's prior, or ``"base"``, the base model without
        an adapter, where the labels' names make it a classifier.
    """

    kind: ClassVar[str] = "gain"
    outcome: ClassVar[type[Outcome]] = GainOutcome

    over: Rival = "default"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.over not in get_args(Rival):
            raise CertificateError(
                f"a gain is over {' or '.join(get_args(Rival))}, not {self.over!r}"
            )

    @classmethod
    def asked(cls, argument: str | None, *, share: float) -> Self:
        """Make the promise of a gain over the named rival."""
        if argument is None:
            return cls(share=share)
        # What is no rival's name is refused when the promise is made.
        return cls(share=share, over=cast(Rival, argument))

    def check_task(self, labels: int, *, own_labels: bool) -> None:
        """Raise `CertificateError` if the base model alone is no classifier."""
        if self.over == "base" and not own_labels:
            raise CertificateError(
                "the base model alone predicts none of these labels, so there is no gain over "
                "it; promise the gain over the default adapter: gain=default"
            )

    def count(self, evidence: Evidence, chosen: None, ground: Ground) -> GainOutcome:
        """Count the examples won and lost; where rounding could decide, against the adapter."""
        tolerance = evidence.tolerance
        own, other = evidence.certifying.leads, evidence.of(self.over).leads
        won = (own > tolerance) & (other < -tolerance)
        lost = (own <= tolerance) & (other >= -tolerance)
        outcome = GainOutcome(won=int(won.sum()), lost=int(lost.sum()), at_least=0.0)
        return self.bound(outcome, ground)

    def bound(self, outcome: GainOutcome, ground: Ground) -> GainOutcome:
        """Return an outcome with its limit computed again from its counts."""
        if outcome.won + outcome.lost > ground.trials:
            raise CertificateError(
                f"{outcome.won} examples won and {outcome.lost} lost of {ground.trials} cannot "
                "be"
            )
        half, steps = ground.budget / 2, round(1 / GRID)
        most_lost = binomial_upper_bound(outcome.lost, ground.trials, half)
        least_won = lower_limit(outcome.won, ground.trials, half)
        at_least = (round(least_won * steps) - round(most_lost * steps)) / steps
        return replace(outcome, at_least=at_least)

    def check_beside(self, outcome: GainOutcome, *, errors: int, trials: int) -> None:
        """Raise `CertificateError` if more is won than is right, or lost than is wrong."""
        if outcome.won > trials - errors or outcome.lost > errors:
            raise CertificateError(
                f"{outcome.won} examples won and {outcome.lost} lost do not go with {errors} "
                f"errors on {trials} examples"
            )

    def asked_for(self) -> str:
        """Name whom the adapter is to be better than."""
        return f"better than {_RIVALS[self.over]}"

    def gives(self, outcome: GainOutcome) -> bool:
        """Return whether there is a gain."""
        return outcome.at_least > 0

    def purpose(self) -> str:
        """Say what its share of delta buys."""
        return (
            f"compare it with {_RIVALS[self.over]}, half for the examples won and half for "
            "those lost"
        )

    def words(self, outcome: GainOutcome, ground: Ground) -> str:
        """Say whether personalizing helps this client, and by how much."""
        verdict = (
            "Personalizing helps this client"
            if outcome.at_least > 0
            else "The examples do not show that personalizing helps this client"
        )
        return (
            f"{verdict}: the adapter's probability of the right label minus that of "
            f"{_RIVALS[self.over]} is at least {outcome.at_least:.6f}. Of the "
            f"{ground.trials} certifying examples it wins {outcome.won} and loses "
            f"{outcome.lost}."
        )
