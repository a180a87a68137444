"""Simultaneous statements: the certificates of N clients hold all at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from fedcert.certificates.bounds import confidence
from fedcert.certificates.promises.base import Ground, Outcome, Promise, register_promise
from fedcert.certificates.promises.evidence import Evidence
from fedcert.errors import CertificateError

__all__ = ["SimultaneousOutcome", "SimultaneousPromise"]


@dataclass(frozen=True, kw_only=True)
class SimultaneousOutcome(Outcome):
    """Nothing is counted: delta was divided among the clients beforehand."""

    kind: ClassVar[str] = "simultaneous"

    def row(self) -> str:
        """Return the outcome in a few words."""
        return "holds together with those of the other clients"


@register_promise
@dataclass(frozen=True, kw_only=True)
class SimultaneousPromise(Promise[SimultaneousOutcome]):
    """Say that the certificates of one bundle hold all at once, whoever looks at which.

    The delta of each of N clients is an N-th of that of all (Bonferroni), and the server
    issues seeds for no more than N of them. It takes no share of its own.

    Parameters
    ----------
    clients : int
        N, fixed before any client is served.
    delta : float
        Probability that any of their certificates is false, which all of them share.
    """

    kind: ClassVar[str] = "simultaneous"
    outcome: ClassVar[type[Outcome]] = SimultaneousOutcome
    takes_server: ClassVar[bool] = True

    share: float = 0.0
    clients: int
    delta: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.clients, int) or isinstance(self.clients, bool):
            raise CertificateError(f"clients must be a whole number, not {self.clients!r}")
        if self.clients < 2:
            raise CertificateError("statements are simultaneous for two clients or more")
        if not isinstance(self.delta, float) or not 0 < self.delta < 1:
            raise CertificateError(f"delta must lie between 0 and 1, not {self.delta!r}")

    @classmethod
    def asked(cls, argument: str | None, *, share: float) -> Self:
        """Refuse: it divides delta, and has a setting of its own."""
        raise CertificateError(
            "certificates hold all at once by a setting of its own: certificate.simultaneous, "
            "the number of clients"
        )

    @property
    def holders(self) -> int:
        """How many clients hold certificates of one bundle."""
        return self.clients

    def check_delta(self, total: float) -> None:
        """Raise `CertificateError` if the deltas of N certificates exceed that of all."""
        if self.clients * total > self.delta * (1 + 1e-9):
            raise CertificateError(
                f"{self.clients} certificates with delta {total:g} may be false with more than "
                f"{self.delta:g} in all"
            )

    def count(self, evidence: Evidence, chosen: None, ground: Ground) -> SimultaneousOutcome:
        """Return that nothing is counted."""
        return SimultaneousOutcome()

    def bound(self, outcome: SimultaneousOutcome, ground: Ground) -> SimultaneousOutcome:
        """Return the outcome: there is no bound of its own."""
        return outcome

    def asked_for(self) -> str:
        """Name the number of clients."""
        return f"true for {self.clients} clients at once"

    def purpose(self) -> str:
        """Say what was divided."""
        return f"hold together with those of {self.clients} clients in all"

    def words(self, outcome: SimultaneousOutcome, ground: Ground) -> str:
        """Say that all of them hold at once."""
        return (
            f"It holds together with the certificates of the other clients: with probability "
            f"at least {confidence(self.delta)} all of them are true at once, where the server "
            f"serves this bundle to {self.clients} clients at most, each at an equal share of "
            f"{self.delta:g}."
        )
