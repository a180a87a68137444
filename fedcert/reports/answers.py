"""A run in words: how good its certificates are, how sure that is, and what would help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from scipy.stats import binom

from fedcert.certificates.bounds import binomial_upper_bound
from fedcert.reports.formats import percent, percent_brief, percent_up, plural, sure_of
from fedcert.reports.results import Client, Results
from fedcert.reports.summary import Headline

__all__ = ["Answers", "answers", "labels_for"]

_TARGETS = (0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05, 0.02, 0.01)
_FACTORS = (1.25, 1.5, 2, 3, 4, 6, 8)
# A difference of certificates that nobody would act upon.
_ALIKE = 0.005


@dataclass(frozen=True)
class Answers:
    """Answers to the questions that somebody who has to decide asks.

    Attributes
    ----------
    good : str
        How good the adapters are, beside guessing and beside what clients get alone.
    sure : str
        How sure that is.
    following : str
        What would make it better.
    """

    good: str
    sure: str
    following: str


def answers(results: Results, facts: Headline) -> Answers | None:
    """Put a run's outcome into words; None if no new client has a certificate.

    Parameters
    ----------
    results : Results
        The run's.
    facts : Headline
        Its headline figures.
    """
    if facts.mean_bound is None:
        return None
    return Answers(
        good=_good(results, facts),
        sure=_sure(results, facts),
        following=_following(results, facts.mean_bound),
    )


def labels_for(clients: Sequence[Client], target: float) -> float | None:
    """Return how many times as many labels would bring the mean certificate to a target.

    Each client's certificate is computed again for more certifying examples, with the share of
    errors that it has and at the same cost of choosing.

    Parameters
    ----------
    clients : sequence of Client
        With errors and certifying examples.
    target : float
        The mean certificate that is wanted.

    Returns
    -------
    float or None
        A factor of at most 8; None if that does not do it.
    """
    return next((factor for factor in _FACTORS if _mean_with(clients, factor) <= target), None)


def _mean_with(clients: Sequence[Client], factor: float) -> float:
    bounds = []
    for client in clients:
        errors, count = int(client.errors or 0), int(client.certified_on or 0)
        # What the bound left of delta once the choice was paid for.
        level = float(np.clip(binom.cdf(errors, count, client.bound), 1e-300, 0.5))
        more, wrong = round(factor * count), ceil(factor * errors)
        bounds.append(binomial_upper_bound(min(wrong, more), more, level))
    return float(np.mean(bounds))


def _good(results: Results, facts: Headline) -> str:
    assert facts.mean_bound is not None
    said = f"At most {percent_up(facts.mean_bound)} wrong is what certificates say on average."
    if facts.mean_error is not None:
        said += f" On unused test examples it was {percent(facts.mean_error)}"
        said += f", give or take {percent(2 * facts.error_se)}." if facts.error_se else "."
    if results.chance_error is not None:
        said += f" Guessing is wrong on {percent_brief(results.chance_error)}."
    if facts.local_bound is not None:
        said += (
            " A client on its own, which trains a head on half of its labels, certifies "
            f"{percent_up(facts.local_bound)} with the other half"
        )
        if facts.local_error is not None:
            said += f", and errs on {percent(facts.local_error)}"
        said += "."
    return said


def _sure(results: Results, facts: Headline) -> str:
    said = ""
    if facts.delta is not None:
        said = f"Each certificate holds with probability {sure_of(facts.delta)} or more. "
    if facts.nonvacuous is not None:
        said += f"{facts.nonvacuous} of {facts.clients} say more than guessing. "
    if facts.measured:
        said += (
            "No measured error exceeds its certificate. "
            if not facts.above
            else f"{plural(facts.above, 'measured error')} of {facts.measured} exceeded the "
            "certificate. "
        )
    if facts.unverified:
        return f"{said}{plural(facts.unverified, 'certificate')} did not verify."
    return said + ("All verified." if not facts.unchecked else "Not all were verified.")


def _following(results: Results, bound: float) -> str:
    clients = [
        c
        for c in results.clients
        if c.errors is not None and c.certified_on and c.errors <= c.certified_on
    ]
    if len(clients) < len(results.clients):
        return "The run recorded no counts, from which the effect of more labels could be told."
    labels = float(np.mean([client.n for client in clients]))
    rate = sum(c.errors or 0 for c in clients) / sum(c.certified_on or 0 for c in clients)
    target = next((step for step in _TARGETS if step < bound - _ALIKE), None)
    if target is None:
        return "There is little left to gain."
    factor = labels_for(clients, target)
    if factor is not None:
        return (
            f"For a mean certificate of {percent_brief(target)} a client needs about "
            f"{ceil(factor * labels):,} labels instead of {labels:,.0f}, if the share of "
            f"errors among those that certify stays at {percent(rate)}."
        )
    return (
        f"Even {_FACTORS[-1]} times as many labels, spent by the same recipe, do not bring "
        f"the mean certificate to {percent_brief(target)}: "
        f"{percent(rate)} of the certifying examples are wrong. A better prior (more upstream "
        "clients, or a better base model) has to come first."
    )
