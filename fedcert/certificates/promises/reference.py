"""Not forgetting: the error on a public sample that comes with the bundle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from fedcert.certificates.bounds import binomial_upper_bound
from fedcert.certificates.promises.base import Ground, Outcome, Promise, register_promise
from fedcert.certificates.promises.evidence import Evidence
from fedcert.errors import CertificateError

__all__ = ["ReferenceOutcome", "ReferencePromise"]


@dataclass(frozen=True, kw_only=True)
class ReferenceOutcome(Outcome):
    """What was counted on the reference sample, and what follows.

    Parameters
    ----------
    errors : int
        Wrong labels on the sample.
    trials : int
        Its size.
    at_most : float
        Upper bound of the risk on what the sample was drawn from, in (0, 1].
    """

    kind: ClassVar[str] = "reference"

    errors: int
    trials: int
    at_most: float

    def row(self) -> str:
        """Return the outcome in a few words."""
        return (
            f"on the reference sample at most {self.at_most:.6f} "
            f"({self.errors} errors on {self.trials})"
        )


@register_promise
@dataclass(frozen=True, kw_only=True)
class ReferencePromise(Promise[ReferenceOutcome]):
    """Bound the adapter's error on what all clients meet together.

    The bundle carries a labeled sample that nothing was trained, fitted, or planned on.
    Anybody counts the errors again with the bundle and the adapter alone. Being public, the
    sample may have been looked at by whoever chose the adapter; where it is one of M draws
    all of them are paid for, so the bound holds all the same.
    """

    kind: ClassVar[str] = "reference"
    outcome: ClassVar[type[Outcome]] = ReferenceOutcome
    public: ClassVar[bool] = True

    def check_task(self, labels: int, *, own_labels: bool) -> None:
        """Raise `CertificateError` if the labels mean something else to each client."""
        if own_labels:
            raise CertificateError(
                "each client brings its own labels, so no sample is labeled for all of them; "
                "leave 'reference' out of certificate.promises"
            )

    def count(self, evidence: Evidence, chosen: None, ground: Ground) -> ReferenceOutcome:
        """Count the errors on the bundle's reference sample."""
        answers = evidence.reference
        errors = int((answers.leads <= evidence.tolerance).sum())
        outcome = ReferenceOutcome(errors=errors, trials=len(answers), at_most=1.0)
        return self.bound(outcome, ground)

    def bound(self, outcome: ReferenceOutcome, ground: Ground) -> ReferenceOutcome:
        """Return an outcome with its bound computed again from its count."""
        at_most = binomial_upper_bound(outcome.errors, outcome.trials, ground.public_budget)
        return replace(outcome, at_most=at_most)

    def asked_for(self) -> str:
        """Name the sample."""
        return "the error on the reference sample"

    def purpose(self) -> str:
        """Say what its share of delta buys."""
        return "bound the error on the bundle's reference sample"

    def words(self, outcome: ReferenceOutcome, ground: Ground) -> str:
        """Say what the adapter still knows, and what that takes for granted."""
        looked = (
            "The adapter was refined, and no draw: this takes for granted that it was made "
            "without a look at the sample."
            if ground.refined
            else "Every candidate is paid for, so this holds even if the choice among them "
            "looked at the sample."
        )
        return (
            f"On what the bundle's reference sample was drawn from, the adapter's probability "
            f"of a wrong label is at most {outcome.at_most:.6f}: it is wrong on "
            f"{outcome.errors} of the {outcome.trials} examples of the sample, which anybody "
            f"can count again with the bundle and the adapter alone. {looked} That the sample "
            f"was drawn independently, and the bundle made without it, is the federation's "
            f"word."
        )
