"""Answer sets: the true label is among the q most probable ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from fedcert.certificates.bounds import binomial_upper_bound
from fedcert.certificates.promises.base import Ground, Outcome, Promise, register_promise
from fedcert.certificates.promises.evidence import Evidence
from fedcert.errors import CertificateError

__all__ = ["SetsOutcome", "SetsPromise"]


@dataclass(frozen=True, kw_only=True)
class SetsOutcome(Outcome):
    """What was counted of the answer sets, and what follows.

    Parameters
    ----------
    missed : int
        Certifying examples whose label is not in the set.
    missed_at_most : float
        Upper bound of the probability that the set misses the label of a fresh example.
    """

    kind: ClassVar[str] = "sets"
    figures: ClassVar[tuple[str, ...]] = ("missed_at_most",)

    missed: int
    missed_at_most: float

    def row(self) -> str:
        """Return the outcome in a few words."""
        return f"at most {self.missed_at_most:.6f} of the sets miss ({self.missed} did)"


@register_promise
@dataclass(frozen=True, kw_only=True)
class SetsPromise(Promise[SetsOutcome]):
    """Bound how often the set of the q most probable labels misses the true one.

    Parameters
    ----------
    size : int
        q, from 2 on and below the number of labels; fixed before any example is seen
        (default: 3).
    """

    kind: ClassVar[str] = "sets"
    outcome: ClassVar[type[Outcome]] = SetsOutcome

    size: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.size, int) or isinstance(self.size, bool) or self.size < 2:
            raise CertificateError(f"an answer set has two labels or more, not {self.size!r}")

    @classmethod
    def asked(cls, argument: str | None, *, share: float) -> Self:
        """Make the promise for sets of the named size."""
        return cls(share=share) if argument is None else cls(share=share, size=int(argument))

    def check_task(self, labels: int, *, own_labels: bool) -> None:
        """Raise `CertificateError` if the set would hold all labels."""
        if not own_labels and self.size >= labels:
            raise CertificateError(
                f"an answer set of {self.size} labels never misses one of {labels}; promise a "
                "smaller one"
            )

    def count(self, evidence: Evidence, chosen: None, ground: Ground) -> SetsOutcome:
        """Count the sets that miss."""
        answers = evidence.certifying
        if self.size >= answers.logits.shape[1]:
            leads = answers.leads  # a client with few labels of its own: one that fails misses
            missed = int((leads == -float("inf")).sum())
        else:
            missed = int((answers.lead_over(self.size) <= evidence.tolerance).sum())
        return self.bound(SetsOutcome(missed=missed, missed_at_most=0.0), ground)

    def bound(self, outcome: SetsOutcome, ground: Ground) -> SetsOutcome:
        """Return an outcome with its bound computed again from its count."""
        missed = binomial_upper_bound(outcome.missed, ground.trials, ground.budget)
        return replace(outcome, missed_at_most=missed)

    def check_beside(self, outcome: SetsOutcome, *, errors: int, trials: int) -> None:
        """Raise `CertificateError` if the sets miss more than their first label does."""
        if outcome.missed > errors:
            raise CertificateError(
                f"sets that miss {outcome.missed} labels do not go with {errors} errors"
            )

    def asked_for(self) -> str:
        """Name the size of the sets."""
        return f"the true label among the {self.size} most probable"

    def purpose(self) -> str:
        """Say what its share of delta buys."""
        return f"bound how often the {self.size} most probable labels miss the true one"

    def words(self, outcome: SetsOutcome, ground: Ground) -> str:
        """Say how often the set misses."""
        return (
            f"The probability that the true label is not among the {self.size} labels with the "
            f"highest logits is at most {outcome.missed_at_most:.6f}: it was not on "
            f"{outcome.missed} of the {ground.trials} certifying examples."
        )
