"""Abstention: answer only above a margin, and be wrong on few of the answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from fedcert.certificates.bounds import binomial_upper_bound
from fedcert.certificates.promises.base import Ground, Outcome, register_promise
from fedcert.certificates.promises.evidence import Answers, Evidence
from fedcert.certificates.promises.limits import lower_limit
from fedcert.certificates.promises.thresholds import (
    THRESHOLDS,
    ThresholdPromise,
    best_threshold,
    split_argument,
)
from fedcert.errors import CertificateError
from fedcert.records import OrAbsent

__all__ = ["AbstentionOutcome", "AbstentionPromise"]

_FEWEST = 16
"""With fewer answers nothing is said about them."""


@dataclass(frozen=True, kw_only=True)
class AbstentionOutcome(Outcome):
    """What was counted of the answers, and what follows.

    Parameters
    ----------
    threshold : float
        An answer is given where the highest logit exceeds the second by more than this.
    answered : int
        Certifying examples that are answered whatever the rounding: by a margin above the
        threshold by more than the recipe's tolerance.
    judged : int
        Answers that the error is counted on; those whose margin is within the tolerance of the
        threshold are among them only if they are wrong.
    wrong : int
        Wrong ones among the judged.
    answered_at_least : float
        Lower limit of the share of fresh examples that is answered.
    wrong_at_most : float or None
        Upper bound of the error among the answered; None, and absent from the JSON form, if
        fewer than 16 answers were judged.
    """

    kind: ClassVar[str] = "abstention"
    figures: ClassVar[tuple[str, ...]] = ("wrong_at_most", "answered_at_least")

    threshold: float
    answered: int
    judged: int
    wrong: int
    answered_at_least: float
    wrong_at_most: OrAbsent[float] = None

    def row(self) -> str:
        """Return the outcome in a few words."""
        if self.wrong_at_most is None:
            return f"only {self.judged} answers, too few to say anything of them"
        return (
            f"at most {self.wrong_at_most:.6f} wrong among the answered ({self.wrong} of "
            f"{self.judged}), at least {self.answered_at_least:.6f} answered"
        )

    def chosen(self) -> float:
        """Return the threshold."""
        return self.threshold

    def answers_above(self) -> float | None:
        """Return the threshold, if anything is promised of the answers above it."""
        return None if self.wrong_at_most is None else self.threshold


@register_promise
@dataclass(frozen=True, kw_only=True)
class AbstentionPromise(ThresholdPromise[AbstentionOutcome]):
    """Bound the error among the answered from above, the share answered from below.

    Which examples are answered is fixed by adapter and threshold. Given that, the wrong ones
    among the answered are binomial, and the answered ones among all are: two exact statements,
    each at half of the budget.

    Parameters
    ----------
    most_wrong : float
        Error among the answered that the threshold is chosen for, in (0, 1) (default: 0.1).
    """

    kind: ClassVar[str] = "abstention"
    outcome: ClassVar[type[Outcome]] = AbstentionOutcome

    most_wrong: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.most_wrong, float) or not 0 < self.most_wrong < 1:
            raise CertificateError(
                f"most_wrong must lie between 0 and 1, not {self.most_wrong!r}"
            )

    @classmethod
    def asked(cls, argument: str | None, *, share: float) -> Self:
        """Make the promise of the wanted error among the answered, maybe ``@`` a threshold."""
        if argument is None:
            return cls(share=share)
        error, threshold = split_argument(argument)
        return cls(share=share, most_wrong=float(error), threshold=threshold)

    def choose(self, evidence: Evidence, ground: Ground) -> float | None:
        """Return the threshold that answers most and still promises what is wanted.

        The choosing examples stand for the certifying ones, of which there may be more or
        fewer. If no threshold promises enough, the one that promises most is taken.

        Parameters
        ----------
        evidence : Evidence
            The answers on the choosing examples.
        ground : Ground
            What the promise stands on.

        Returns
        -------
        float or None
            A multiple of 1e-4; None if no example is left to choose.
        """
        if self.threshold is not None:
            return self.threshold
        if evidence.choosing is None:
            return None
        margins = np.unique(evidence.choosing.margins)
        between = (margins[1:] + margins[:-1]) / 2
        found = (round(float(value), 4) for value in between[np.isfinite(between)])
        return self._best([0.0, *found], evidence.choosing, evidence, ground)

    def count(
        self, evidence: Evidence, chosen: float | None, ground: Ground
    ) -> AbstentionOutcome:
        """Count the answers and the wrong ones among them.

        Without a threshold the certifying examples choose one of `THRESHOLDS`, and pay for all.
        """
        if chosen is None:
            chosen = self._best(THRESHOLDS, evidence.certifying, evidence, ground)
        answered, judged, wrong = _counts(evidence.certifying, chosen, evidence.tolerance)
        outcome = AbstentionOutcome(
            threshold=chosen,
            answered=answered,
            judged=judged,
            wrong=wrong,
            answered_at_least=0.0,
        )
        return self.bound(outcome, ground)

    def bound(self, outcome: AbstentionOutcome, ground: Ground) -> AbstentionOutcome:
        """Return an outcome with its bounds computed again from its counts."""
        answered, judged, wrong = outcome.answered, outcome.judged, outcome.wrong
        if not (wrong <= judged <= ground.trials and answered <= judged):
            # An answer beyond doubt is judged, whether it is wrong or right.
            raise CertificateError(
                f"{answered} answers of {ground.trials}, {judged} of them judged and {wrong} "
                "wrong, cannot be"
            )
        self._check_threshold(outcome.threshold, ground)
        half = self._half(ground)
        return replace(
            outcome,
            answered_at_least=lower_limit(answered, ground.trials, half),
            wrong_at_most=binomial_upper_bound(wrong, judged, half)
            if judged >= _FEWEST
            else None,
        )

    def check_beside(self, outcome: AbstentionOutcome, *, errors: int, trials: int) -> None:
        """Raise `CertificateError` if there are more wrong answers than wrong labels."""
        right = outcome.judged - outcome.wrong
        if outcome.wrong > errors or right > trials - errors:
            raise CertificateError(
                f"{outcome.wrong} wrong answers and {right} right ones do not go with {errors} "
                f"errors on {trials} examples"
            )

    def asked_for(self) -> str:
        """Name the wanted error among the answered."""
        return f"at most {self.most_wrong:g} wrong among the answered"

    def gives(self, outcome: AbstentionOutcome) -> bool:
        """Return whether as little is wrong among the answered as is wanted."""
        return outcome.wrong_at_most is not None and outcome.wrong_at_most <= self.most_wrong

    def purpose(self) -> str:
        """Say what its share of delta buys."""
        return (
            "bound the error among the answered and, at the other half of this, the share that "
            "is answered"
        )

    def words(self, outcome: AbstentionOutcome, ground: Ground) -> str:
        """Say when it answers, how often, and how often it is wrong then."""
        if self.threshold is not None:
            chosen = "a threshold fixed beforehand"
        elif ground.chosen_on:
            chosen = "a threshold chosen by the other examples"
        else:
            chosen = f"one of {len(THRESHOLDS)} thresholds, all of which are paid for"
        beginning = (
            f"With an answer only where the highest logit exceeds the second by more than "
            f"{outcome.threshold:g}, {chosen},"
        )
        if outcome.wrong_at_most is None:
            return (
                f"{beginning} it answers {outcome.answered} of the {ground.trials} certifying "
                f"examples, too few to say anything about its answers."
            )
        return (
            f"{beginning} the probability of a wrong label among the answered is at most "
            f"{outcome.wrong_at_most:.6f}, and the probability of an answer at least "
            f"{outcome.answered_at_least:.6f}: of {ground.trials} certifying examples "
            f"{outcome.answered} are answered, and {outcome.wrong} of {outcome.judged} answers "
            f"are wrong."
        )

    def _half(self, ground: Ground) -> float:
        """Return the budget of each of the two statements."""
        return ground.budget / 2 / self._paid(ground)

    def _best(
        self, thresholds: Sequence[float], answers: Answers, evidence: Evidence, ground: Ground
    ) -> float:
        """Return the lowest threshold that promises enough, or else the one that promises most.

        What other examples than the certifying ones say is scaled to the number of those.
        """
        half, scale = self._half(ground), len(evidence.certifying) / len(answers)
        promised = {}
        for threshold in sorted(thresholds):
            _, judged, wrong = _counts(answers, threshold, evidence.tolerance)
            expected = math.floor(judged * scale)
            if expected < _FEWEST:
                continue
            errors = min(math.ceil(wrong * scale), expected)
            promised[threshold] = binomial_upper_bound(errors, expected, half)
            if promised[threshold] <= self.most_wrong:
                break  # a higher one answers less
        found = best_threshold(promised, self.most_wrong)
        return min(thresholds) if found is None else found


def _counts(answers: Answers, threshold: float, tolerance: float) -> tuple[int, int, int]:
    """Count the answers beyond doubt, the judged ones, and the wrong ones among those."""
    surely = answers.margins > threshold + tolerance
    maybe = ~(answers.margins <= threshold - tolerance) | (answers.labels < 0)
    wrong = answers.leads <= tolerance
    # What failed to evaluate has no margin; it counts as answered, and wrong.
    failed = ~np.isfinite(answers.margins)
    bad = wrong & (maybe | failed)
    surely &= answers.labels >= 0
    return int(surely.sum()), int((bad | (surely & ~wrong)).sum()), int(bad.sum())
