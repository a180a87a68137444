"""Early exits: answer at a cheaper operating point where it is sure, else go on to this one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

import numpy as np

from fedcert.certificates.bounds import (
    WEIGHT_DENOMINATOR,
    binomial_upper_bound,
    budget_of,
)
from fedcert.certificates.promises.base import Ground, Outcome, register_promise
from fedcert.certificates.promises.evidence import Answers, Evidence
from fedcert.certificates.promises.thresholds import (
    THRESHOLDS,
    ThresholdPromise,
    split_argument,
)
from fedcert.errors import CertificateError
from fedcert.records import Digest, OrAbsent

__all__ = ["ExitOutcome", "ExitPromise"]


@dataclass(frozen=True, kw_only=True)
class ExitOutcome(Outcome):
    """What was counted of the policy, and what follows; nothing without an early adapter.

    Parameters
    ----------
    early : str or None
        Digest of the early adapter's tensors. None, like all that follows, if the device had
        none that the certifying examples may be used with.
    weight : int or None
        The early adapter's weight in its own recipe, over 2**53; None if it has all of it.
    threshold : float or None
        The early adapter answers where its highest logit exceeds the second by more than this.
    wrong : int or None
        Certifying examples that the policy is wrong on; where the early margin is within the
        tolerance of the threshold, those that either adapter is wrong on.
    goes_on : int or None
        Certifying examples whose early margin is not above the threshold by more than the
        tolerance, and those without a label of the task.
    wrong_at_most, goes_on_at_most : float or None
        Upper bounds of the policy's error, and of the share of fresh examples that goes on.
    """

    kind: ClassVar[str] = "exit"

    early: OrAbsent[Digest] = None
    weight: OrAbsent[int] = None
    threshold: OrAbsent[float] = None
    wrong: OrAbsent[int] = None
    goes_on: OrAbsent[int] = None
    wrong_at_most: OrAbsent[float] = None
    goes_on_at_most: OrAbsent[float] = None

    def row(self) -> str:
        """Return the outcome in a few words."""
        if self.early is None:
            return "no early adapter was at hand, so nothing is said of an early exit"
        wrong, goes_on = self.bounds()
        return (
            f"with early exits at most {wrong:.6f} wrong ({self.wrong} were), and at most "
            f"{goes_on:.6f} go on ({self.goes_on} did)"
        )

    def chosen(self) -> float | None:
        """Return the threshold; None if nothing is said of early exits."""
        return None if self.early is None else self.counts()[0]

    def early_exit(self) -> tuple[str, float] | None:
        """Return the early adapter's digest, and the margin above which it answers."""
        return None if self.early is None else (self.early, self.counts()[0])

    def counts(self) -> tuple[float, int, int]:
        """Return threshold, wrong, and goes_on.

        Raises
        ------
        CertificateError
            If they are not all there.
        """
        if self.threshold is None or self.wrong is None or self.goes_on is None:
            raise CertificateError(
                "an early adapter is named, and its counts are not all there"
            )
        return self.threshold, self.wrong, self.goes_on

    def bounds(self) -> tuple[float, float]:
        """Return wrong_at_most and goes_on_at_most.

        Raises
        ------
        CertificateError
            If they are not both there.
        """
        if self.wrong_at_most is None or self.goes_on_at_most is None:
            raise CertificateError("an early adapter is named, but not both of its bounds")
        return self.wrong_at_most, self.goes_on_at_most


@register_promise
@dataclass(frozen=True, kw_only=True)
class ExitPromise(ThresholdPromise[ExitOutcome]):
    """Bound the error of a policy of two operating points, and how often it goes on.

    The policy answers with the early point's adapter where its margin is above a threshold,
    and else with the certified adapter. Given both adapters and the threshold, the policy's
    errors are binomial, and so is the number of examples that go on: two exact statements,
    each at half of the budget. How long each point takes is the device's to measure, and the
    share that goes on turns it into an expected cost.

    Parameters
    ----------
    early : str
        Name of the early operating point.
    """

    kind: ClassVar[str] = "exit"
    outcome: ClassVar[type[Outcome]] = ExitOutcome

    early: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.early, str) or not self.early:
            raise CertificateError(f"an early exit is at a named point, not at {self.early!r}")

    @classmethod
    def asked(cls, argument: str | None, *, share: float) -> Self:
        """Make the promise for the named early point, maybe ``@`` a threshold."""
        if argument is None:
            raise CertificateError("'exit' needs an operating point, as in exit=depth-3")
        early, threshold = split_argument(argument)
        return cls(share=share, early=early, threshold=threshold)

    def choose(self, evidence: Evidence, ground: Ground) -> float | None:
        """Return the lowest threshold at which the policy errs no more often than going on.

        Parameters
        ----------
        evidence : Evidence
            The answers of both adapters on the choosing examples.
        ground : Ground
            What the promise stands on.

        Returns
        -------
        float or None
            A multiple of 1e-4; None if no example is left to choose.
        """
        early = evidence.early(self.early)
        if self.threshold is not None or early is None:
            return self.threshold
        if early.choosing is None or evidence.choosing is None:
            return None
        margins = early.choosing.margins
        found = np.unique(margins[np.isfinite(margins)])
        between = [*(found[1:] + found[:-1]) / 2, *(found[-1:] + 1)]
        steps = [0.0, *(round(float(value), 4) for value in between)]
        return _lowest(steps, early.choosing, evidence.choosing, evidence.tolerance)

    def count(self, evidence: Evidence, chosen: float | None, ground: Ground) -> ExitOutcome:
        """Count the policy's errors, and the examples that go on.

        Parameters
        ----------
        evidence : Evidence
            What both adapters answer.
        chosen : float or None
            The threshold; None has the certifying examples choose one of `THRESHOLDS`, and
            pay for all.
        ground : Ground
            What the promise stands on.

        Returns
        -------
        ExitOutcome
            The counts and the bounds; an empty one if there is no early adapter.
        """
        early = evidence.early(self.early)
        if early is None:
            return ExitOutcome()
        both = early.certifying, evidence.certifying
        if chosen is None:
            chosen = _lowest(THRESHOLDS, *both, evidence.tolerance)
        wrong, goes_on = _counts(*both, chosen, evidence.tolerance)
        outcome = ExitOutcome(
            early=early.adapter,
            weight=None if early.weight == WEIGHT_DENOMINATOR else early.weight,
            threshold=chosen,
            wrong=wrong,
            goes_on=goes_on,
        )
        return self.bound(outcome, ground)

    def bound(self, outcome: ExitOutcome, ground: Ground) -> ExitOutcome:
        """Return an outcome with its bounds computed again from its counts.

        Parameters
        ----------
        outcome : ExitOutcome
            With its counts.
        ground : Ground
            What the promise stands on.

        Raises
        ------
        CertificateError
            If the counts are impossible, or the threshold is none that could be chosen.
        """
        if outcome.early is None:
            said = [f.name for f in fields(outcome) if getattr(outcome, f.name) is not None]
            if said:
                raise CertificateError(
                    f"{', '.join(said)} of an early adapter that has no name"
                )
            return outcome
        threshold, wrong, goes_on = outcome.counts()
        self._check_threshold(threshold, ground)
        weight = WEIGHT_DENOMINATOR if outcome.weight is None else outcome.weight
        half = self._half(ground, weight)
        return replace(
            outcome,
            wrong_at_most=binomial_upper_bound(wrong, ground.trials, half),
            goes_on_at_most=binomial_upper_bound(goes_on, ground.trials, half),
        )

    def asked_for(self) -> str:
        """Name the early point."""
        return f"early exits at the point {self.early}"

    def gives(self, outcome: ExitOutcome) -> bool:
        """Return whether anything is said of early exits."""
        return outcome.early is not None

    def purpose(self) -> str:
        """Say what its share of delta buys."""
        return (
            f"bound the error with early exits at {self.early!r} and, at the other half of "
            "this, the share that goes on"
        )

    def words(self, outcome: ExitOutcome, ground: Ground) -> str:
        """Say how often the policy is wrong, and how often it goes on.

        Parameters
        ----------
        outcome : ExitOutcome
            What was counted.
        ground : Ground
            What the promise stands on.
        """
        if outcome.early is None:
            return (
                f"Of early exits at the operating point {self.early!r} it says nothing: no "
                "certified adapter of that point was at hand."
            )
        if self.threshold is not None:
            how = "fixed beforehand"
        elif ground.chosen_on:
            how = "chosen by the other examples"
        else:
            how = f"one of {len(THRESHOLDS)}, all of which are paid for"
        threshold, wrong, goes_on = outcome.counts()
        wrong_at_most, goes_on_at_most = outcome.bounds()
        return (
            f"With early exits, where the adapter {outcome.early[:12]} of the operating point "
            f"{self.early!r} answers if its highest logit exceeds the second by more than "
            f"{threshold:g} (a threshold {how}) and else this adapter does, the probability of "
            f"a wrong label is at most {wrong_at_most:.6f}, and the probability that an "
            f"example goes on to this adapter at most {goes_on_at_most:.6f}: of "
            f"{ground.trials} certifying examples {wrong} are wrong, and {goes_on} go on."
        )

    def _half(self, ground: Ground, weight: int) -> float:
        """Return the budget of each of the two statements.

        Both adapters may have been chosen on the certifying examples: every pair is paid for.
        """
        return budget_of(ground.budget, weight) / 2 / self._paid(ground)


def _lowest(
    thresholds: Sequence[float], early: Answers, late: Answers, tolerance: float
) -> float:
    """Return the lowest threshold at which no more is wrong than if all examples went on.

    If there is none, the one at which least is wrong.
    """
    allowed = int((late.leads <= tolerance).sum())
    wrong = {step: _counts(early, late, step, tolerance)[0] for step in sorted(thresholds)}
    fitting = (step for step, count in wrong.items() if count <= allowed)
    return next(fitting, min(wrong, key=wrong.__getitem__))


def _counts(
    early: Answers, late: Answers, threshold: float, tolerance: float
) -> tuple[int, int]:
    """Count the policy's wrong answers and the examples that go on, each at its worst.

    A margin within the tolerance of the threshold may fall on either side of it on another
    machine. An example that cannot be read, or has no label of the task, goes on: what stands
    in its place has a margin that says nothing of it.
    """
    stays = early.margins > threshold - tolerance
    goes_on = (early.margins <= threshold + tolerance) | (early.labels < 0)
    wrong = (stays & (early.leads <= tolerance)) | (goes_on & (late.leads <= tolerance))
    return int(wrong.sum()), int(goes_on.sum())
