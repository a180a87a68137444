"""What promises that choose a margin as their threshold have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedcert.certificates.promises.base import Ground, OutcomeType, Promise
from fedcert.certificates.promises.evidence import Evidence
from fedcert.errors import CertificateError

__all__ = [
    "THRESHOLDS",
    "ThresholdPromise",
    "best_threshold",
    "split_argument",
]

THRESHOLDS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Thresholds, in logits, among which the certifying examples themselves choose where no other
is left to choose, at one eighth of the budget each."""

_HIGHEST = 1e6
# How far a threshold may lie from the one that another machine chooses, which then has to
# promise as much.
_NEAR = 1e-3
# How far apart the same arithmetic puts the same threshold on two machines.
_SAME = 1e-5


@dataclass(frozen=True, kw_only=True)
class ThresholdPromise(Promise[OutcomeType]):
    """A promise about what lies above a margin.

    The threshold is fixed beforehand, or chosen by examples that do not certify, which both
    cost nothing; or else it is one of `THRESHOLDS`, all of which are paid for.

    Parameters
    ----------
    threshold : float or None
        One that is fixed beforehand, as by clients that plan, or where adapters are trained on
        the choosing examples, whose margins then say little (default: None, which has the
        examples choose).
    """

    threshold: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold is None:
            return
        number = isinstance(self.threshold, int | float)
        if not number or isinstance(self.threshold, bool) or not 0 <= self.threshold < _HIGHEST:
            raise CertificateError(
                f"a threshold is a number of logits from 0 on, not {self.threshold!r}"
            )
        # Canonical JSON writes a whole number without a point, and it is read as an integer.
        object.__setattr__(self, "threshold", float(self.threshold))

    def _paid(self, ground: Ground) -> int:
        """Return how many thresholds are paid for."""
        free = self.threshold is not None or ground.chosen_on
        return 1 if free else len(THRESHOLDS)

    def _check_threshold(self, threshold: float, ground: Ground) -> None:
        """Raise `CertificateError` if a threshold is none that could be chosen."""
        if self.threshold is not None and threshold != self.threshold:
            raise CertificateError(
                f"the threshold was fixed at {self.threshold}, not at {threshold}"
            )
        if self._paid(ground) > 1 and threshold not in THRESHOLDS:
            raise CertificateError(
                f"the threshold {threshold} is none of those that are paid for"
            )

    def recount(self, outcome: OutcomeType, evidence: Evidence, ground: Ground) -> str | None:
        """Check an outcome against the examples, at the threshold that it names.

        Where the choosing examples choose one, it must be that up to rounding, and promise no
        more than that: within the rounding certifying examples might have chosen. Where all
        certify, any of `THRESHOLDS` may have been chosen.

        Parameters
        ----------
        outcome : Outcome
            What a certificate says; one that says nothing is right.
        evidence : Evidence
            What the certified adapter answers.
        ground : Ground
            What it stands on.

        Returns
        -------
        str or None
            Whether another threshold was chosen than is chosen here, if it lies so far off that
            the rounding of single logits hardly explains it; None otherwise.

        Raises
        ------
        CertificateError
            If the examples choose another threshold, or give other counts.
        """
        said = outcome.chosen()
        if said is None:
            return None
        chosen = self.choose(evidence, ground)
        if chosen is not None and abs(chosen - said) > _NEAR:
            raise CertificateError(
                f"the choosing examples choose the threshold {chosen:.4f} of the promise "
                f"{self.kind!r}, not {said:.4f}"
            )
        found = self.count(evidence, said, ground)
        if found != outcome:
            raise CertificateError(
                f"the examples give {found.row()}; the certificate says {outcome.row()}"
            )
        if chosen is None or chosen == said:
            return None
        own = self.count(evidence, chosen, ground)
        if not outcome.earned_by(own):
            raise CertificateError(
                f"the choosing examples choose the threshold {chosen:.4f}, which gives less "
                f"than {said:.4f}: {own.row()}"
            )
        if abs(chosen - said) <= _SAME:
            return None
        return (
            f"whether its machine chose the threshold {said:.5f} of the promise {self.kind!r}, "
            f"or its signer chose it before {chosen:.5f} for what it does on the certifying "
            "examples: both earn what is promised, but whoever could go by either has a false "
            "promise up to twice as often"
        )


def best_threshold(expected: Mapping[float, float], goal: float) -> float | None:
    """Return the threshold that answers most of those that are expected to reach a goal.

    The lower a threshold is, the more it answers. If none reaches the goal, it is the one that
    comes nearest to it; of several that come equally near the one that answers most.

    Parameters
    ----------
    expected : Mapping
        By threshold, the bound that is expected there: 1 where nothing can be said.
    goal : float
        The bound that is wanted.

    Returns
    -------
    float or None
        One of the thresholds; None if there is none.

    Examples
    --------
    >>> best_threshold({0.0: 0.3, 1.0: 0.09, 2.0: 0.08}, 0.1)
    1.0
    >>> best_threshold({0.0: 0.3, 1.0: 0.2, 2.0: 0.4}, 0.1)
    1.0
    """
    reached = [threshold for threshold, bound in expected.items() if bound <= goal]
    if reached:
        return min(reached)
    return min(expected, key=lambda threshold: (expected[threshold], threshold), default=None)


def split_argument(argument: str) -> tuple[str, float | None]:
    """Return what stands before ``@``, and the threshold after it, if there is one.

    Raises
    ------
    ValueError
        If the threshold is no number.
    """
    first, at, threshold = argument.partition("@")
    return first, float(threshold) if at else None
