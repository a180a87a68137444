"""What a run comes to: the headline figures and everything that must not be overlooked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import stdev

from fedcert.reports.formats import may_fail, plural
from fedcert.reports.results import Promised, Results

__all__ = ["Headline", "Kept", "alerts", "errors_by_label", "headline", "kept"]


@dataclass(frozen=True)
class Headline:
    """The figures at the top of the report; None where nothing was measured.

    Attributes
    ----------
    clients
        New clients that got a certificate.
    mean_bound, mean_error
        Means over clients; the error over the `measured` clients that have test data.
    elsewhere
        Mean error of the clients' adapters on other new clients' tests; None unless all of
        them were measured there.
    local_bound, local_error
        The same of a head that each client would have trained without the federation.
    nonvacuous
        Clients whose certificate is below chance.
    above
        Measured clients whose test error exceeds the certificate.
    unverified
        Clients whose certificate was checked and did not verify.
    unchecked
        Clients whose certificate was not checked.
    delta
        The largest probability with which a certificate may fail.
    error_se
        Standard error over clients of `mean_error`; zero for a single one.
    sizes, candidates
        Smallest and largest number of support examples, and of candidates, of a client.
    """

    clients: int
    mean_bound: float | None
    mean_error: float | None
    elsewhere: float | None
    local_bound: float | None
    local_error: float | None
    nonvacuous: int | None
    measured: int
    above: int
    unverified: int
    unchecked: int
    delta: float | None
    error_se: float
    sizes: tuple[int, int] | None
    candidates: tuple[int, int] | None


def headline(results: Results) -> Headline:
    """Compute the headline figures."""
    clients = results.clients
    chance = results.chance_error
    measured = [(c.bound, c.test_error) for c in clients if c.test_error is not None]
    elsewhere = [c.elsewhere_error for c in clients if c.elsewhere_error is not None]
    return Headline(
        clients=len(clients),
        mean_bound=_mean(client.bound for client in clients),
        mean_error=_mean(error for _, error in measured),
        # Some clients alone, such as those whose heads are not tuned, are no mean of all.
        elsewhere=_mean(elsewhere) if len(elsewhere) == len(clients) else None,
        local_bound=_mean(c.local_bound for c in clients if c.local_bound is not None),
        local_error=_mean(c.local_error for c in clients if c.local_error is not None),
        nonvacuous=None if chance is None else sum(c.bound < chance for c in clients),
        measured=len(measured),
        above=sum(error > bound for bound, error in measured),
        unverified=sum(client.verified is False for client in clients),
        unchecked=sum(client.verified is None for client in clients),
        delta=max((c.delta for c in clients if c.delta is not None), default=results.delta),
        error_se=_standard_error([error for _, error in measured]),
        sizes=_range(client.n for client in clients),
        candidates=_range(c.candidates for c in clients if c.candidates is not None),
    )


@dataclass(frozen=True)
class Kept:
    """One promise over all clients that were asked to make it.

    Attributes
    ----------
    asked : str
        What was asked, in a few words.
    clients, given : int
        How many certificates were asked for it, and how many give it.
    figures : dict
        Means over the clients of what is promised, by name.
    """

    asked: str
    clients: int
    given: int
    figures: dict[str, float]


def kept(results: Results) -> list[Kept]:
    """Count for each promise how many clients hold it, in the order of their certificates."""
    found: dict[str, list[Promised]] = {}
    for client in results.clients:
        for promise in client.promises:
            found.setdefault(promise.asked, []).append(promise)
    return [
        Kept(
            asked=asked,
            clients=len(made),
            given=sum(each.given for each in made),
            figures={
                name: sum(each.figures.get(name, 1.0) for each in made) / len(made)
                for name in made[0].figures
            },
        )
        for asked, made in found.items()
    ]


def alerts(results: Results, figures: Headline) -> list[str]:
    """List, in plain words, what a reader must know before trusting the headline."""
    found = []
    nearest = results.prior.nearest if results.prior else None
    if nearest is not None and nearest.passed is False:
        found.append(
            "The prior failed the memorization gate: its samples lie too close to adapters "
            "of the pool, so a sample may give away a client's upload."
        )
    if figures.unverified:
        found.append(f"{plural(figures.unverified, 'certificate')} did not verify.")
    if results.delta is not None and figures.above > results.delta * figures.measured:
        found.append(
            f"For {plural(figures.above, 'client')} of {figures.measured} the test error "
            "exceeds the certificate; on average at most "
            f"{may_fail(results.delta)} should."
        )
    if results.failures:
        failed = sum(failure.clients for failure in results.failures)
        found.append(f"{plural(failed, 'client')} failed during the run; the causes are below.")
    return found


def errors_by_label(results: Results) -> dict[str, tuple[int, int]]:
    """Add up, by label, the wrong examples among those that certified, and all of them."""
    added: dict[str, tuple[int, int]] = {}
    for client in results.clients:
        for label, (wrong, every) in client.errors_by_label.items():
            before = added.get(label, (0, 0))
            added[label] = before[0] + wrong, before[1] + every
    return added


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return sum(listed) / len(listed) if listed else None


def _standard_error(values: Sequence[float]) -> float:
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def _range(values: Iterable[int]) -> tuple[int, int] | None:
    listed = list(values)
    return (min(listed), max(listed)) if listed else None
