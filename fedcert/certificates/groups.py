"""What certificates that hold all at once say of groups of clients.

Where the certificates of N clients are true together, so is everything that follows from them:
of any clients the mean error is at most the mean of their bounds, and the worst error at most
the worst bound. The groups may be formed afterwards, and as many as one likes, since nothing
further is estimated. Certificates that stand for themselves say nothing of the kind.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from fedcert.certificates.bounds import GRID, confidence
from fedcert.certificates.promises import SimultaneousPromise
from fedcert.certificates.record import Certificate
from fedcert.certificates.verification import verify_record
from fedcert.errors import CertificateError

__all__ = ["GroupStatement", "Together", "group_statements"]

_STEPS = round(1 / GRID)


@dataclass(frozen=True)
class GroupStatement:
    """What holds of the clients of one group.

    Parameters
    ----------
    group : str
        Its name.
    clients : tuple of str
        Its clients whose certificates were given.
    named : int
        How many clients are named in it, these and others.
    mean_at_most : float
        Upper bound of the mean of their errors, each client counted alike.
    worst_at_most : float
        Upper bound of the largest of them.
    """

    group: str
    clients: tuple[str, ...]
    named: int
    mean_at_most: float
    worst_at_most: float

    @property
    def words(self) -> str:
        """The statement in a sentence."""
        count = len(self.clients)
        among = f", of {self.named} that are named in it," if self.named > count else ""
        if count == 1:
            return (
                f"The one client of {self.group!r} whose certificate was given{among} has a "
                f"probability of a wrong label of at most {self.worst_at_most:.6f}."
            )
        return (
            f"The {count} clients of {self.group!r} whose certificates were given{among} have "
            f"a probability of a wrong label of at most {self.mean_at_most:.6f} on average, "
            f"and none of them has one above {self.worst_at_most:.6f}."
        )


@dataclass(frozen=True)
class Together:
    """Statements about groups, all of which hold at once.

    Parameters
    ----------
    statements : tuple of GroupStatement
        By the groups' names.
    delta : float
        Probability that any of them is false.
    most : int
        How many clients the server serves the bundle to at most.
    server : str
        Public key of the server that issued all seeds.
    """

    statements: tuple[GroupStatement, ...]
    delta: float
    most: int
    server: str

    @property
    def words(self) -> str:
        """What all of them rest on, in two sentences."""
        return (
            f"With probability at least {confidence(self.delta)} all of these statements are "
            f"true at once, however the groups were formed, where the server {self.server} "
            f"serves the bundle to {self.most} clients at most. They follow from the "
            f"certificates, and rest on the assumptions of each."
        )


def group_statements(
    certificates: Sequence[Certificate], groups: Mapping[str, str], *, server: str | None = None
) -> Together:
    """Return what certificates say of groups of their clients.

    Parameters
    ----------
    certificates : sequence of Certificate
        One a client, of one bundle whose certificates hold together
        (``certificate.simultaneous``).
    groups : Mapping
        By client, the name of its group, of all clients that are known to be in one, be they
        certified or not.
    server : str, optional
        Public key of the server that is expected to have issued the seeds.

    Returns
    -------
    Together
        A statement for each group of which a certificate was given.

    Raises
    ------
    CertificateError
        If a certificate does not verify, stands for itself, has no server's seed, or is not of
        the same bundle and server as the others; if a client has two, or no group; if there
        are more clients than delta was divided among.
    """
    if not certificates:
        raise CertificateError("there is no certificate to say anything by")
    promise, issuer = _common(certificates, server)
    _check_clients(certificates, groups)
    if len(certificates) > promise.clients:
        raise CertificateError(
            f"these are the certificates of {len(certificates)} clients, and delta was divided "
            f"among {promise.clients}: the server {issuer} issued more seeds of this bundle "
            "than it promised, so nothing holds of all of them together"
        )
    bounds: dict[str, dict[str, float]] = defaultdict(dict)
    for certificate in certificates:
        bounds[groups[certificate.client]][certificate.client] = certificate.bound
    named = Counter(groups.values())
    statements = tuple(
        GroupStatement(
            name, tuple(sorted(found)), named[name], _mean(found), max(found.values())
        )
        for name, found in sorted(bounds.items())
    )
    return Together(statements, promise.delta, promise.clients, issuer)


def _common(
    certificates: Sequence[Certificate], server: str | None
) -> tuple[SimultaneousPromise, str]:
    """Return the promise that all certificates make, and the server that issued all seeds."""
    found = {}
    for certificate in certificates:
        who = f"the certificate of {certificate.client!r}"
        report = verify_record(certificate)
        if not report.passed:
            raise CertificateError(f"{who} does not verify: {report.failures[0].detail}")
        made = [p for p in certificate.recipe.promises if isinstance(p, SimultaneousPromise)]
        if not made:
            raise CertificateError(
                f"{who} stands for itself: one of several such is false more often than each "
                "says; a run with certificate.simultaneous issues some that hold all at once"
            )
        # A certificate that verifies has a server's seed where it promises to hold with others.
        assert certificate.protocol is not None
        found[certificate.client] = (
            certificate.digests.bundle,
            made[0],
            certificate.protocol.server,
        )
    if len(set(found.values())) > 1:
        first = certificates[0].client
        other = next(client for client in found if found[client] != found[first])
        raise CertificateError(
            f"the certificates of {first!r} and {other!r} are of other bundles or servers, and "
            "hold together only with those of their own"
        )
    _, promise, issuer = found[certificates[0].client]
    if server is not None and issuer != server.lower():
        raise CertificateError(f"the seeds were issued by the server {issuer}, not by {server}")
    return promise, issuer


def _check_clients(certificates: Sequence[Certificate], groups: Mapping[str, str]) -> None:
    """Raise `CertificateError` if a client has two certificates, or is in no group."""
    names = Counter(certificate.client for certificate in certificates)
    if twice := [name for name, count in names.items() if count > 1]:
        raise CertificateError(
            f"{twice[0]!r} has several certificates, all of which hold; give one of them"
        )
    if lost := sorted(names.keys() - groups.keys()):
        raise CertificateError(
            f"{', '.join(map(repr, lost[:5]))}: in no group; name one for each certified client"
        )


def _mean(bounds: Mapping[str, float]) -> float:
    """Return the mean of bounds, rounded up as they are."""
    exact = sum(Fraction(str(bound)) for bound in bounds.values()) / len(bounds)
    return math.ceil(exact * _STEPS) / _STEPS
