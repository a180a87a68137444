"""What a run means, in words: whether its certificates are of use, and the federation pays."""

from __future__ import annotations

from fedcert.reports.formats import percent, percent_up, plural
from fedcert.reports.results import Results
from fedcert.reports.summary import Headline

__all__ = ["verdict"]

USUAL_POOL = 64
"""Adapters from which on a diffusion prior is usually worth having: with 32 its candidates were
a Gaussian's in the benchmarks, with 128 better ones (docs/prior.md, docs/sweeps.md)."""
# How many standard errors a difference takes before it is called one.
_CLEAR = 2.0


def verdict(results: Results, figures: Headline) -> list[str]:
    """Say in a few sentences what a run comes to, and what to do about it.

    Parameters
    ----------
    results : Results
        The run's.
    figures : Headline
        Its headline.

    Returns
    -------
    list of str
        Whether certificates are usable, whether the federation pays, and whether there were
        too few clients; nothing where nothing was measured.
    """
    said = [_usable(results, figures), _pays(results, figures), _few(results)]
    return [sentence for sentence in said if sentence]


def _usable(results: Results, figures: Headline) -> str:
    chance, bound = results.chance_error, figures.mean_bound
    if chance is None or bound is None or figures.nonvacuous is None:
        return ""
    below = f"{figures.nonvacuous} of {plural(figures.clients, 'new client')}"
    if bound < chance and 2 * figures.nonvacuous >= figures.clients:
        return (
            f"Usable: certificates are {percent_up(bound)} on average, and for {below} below "
            f"the {percent(chance)} of guessing."
        )
    return (
        f"Not usable: certificates are {percent_up(bound)} on average where guessing is wrong "
        f"{percent(chance)} of the time, and for {below} below that. More labels of each new "
        "client (certificate.support_size) or more upstream clients lower them."
    )


def _pays(results: Results, figures: Headline) -> str:
    pairs = [(c.bound, c.local_bound) for c in results.clients if c.local_bound is not None]
    if not pairs or figures.local_bound is None:
        return ""
    alone = (
        "a head trained on half of the same labels, with no federation, and certified on the "
        f"other half comes to {percent_up(figures.local_bound)}"
    )
    chance = results.chance_error
    if chance is not None and chance <= min(figures.local_bound, figures.mean_bound or 0):
        # Of two figures that say nothing neither is ahead.
        return (
            "Whether the federation pays cannot be told before certificates say more than "
            f"guessing: {alone}."
        )
    if len(pairs) == 1:
        return f"Whether the federation pays, one client cannot tell: {alone}."
    gains = [local - bound for bound, local in pairs]
    mean = sum(gains) / len(gains)
    spread = sum((gain - mean) ** 2 for gain in gains) / max(1, len(gains) - 1)
    error = (spread / len(gains)) ** 0.5
    if mean > _CLEAR * error:
        return f"The federation pays: {alone}."
    if mean < -_CLEAR * error:
        advice = (
            'let the run plan how labels are spent (certificate.recipe = "planned")'
            if results.method == "prior"
            else 'take another method (method = "prior")'
        )
        return (
            f"The federation does not pay here: {alone}. Let more clients train, or {advice}."
        )
    return f"The federation makes no clear difference here: {alone}."


def _few(results: Results) -> str:
    pool = results.prior.pool_size if results.prior else None
    if pool is None or pool >= USUAL_POOL:
        return ""
    return (
        f"Few clients: {plural(pool, 'adapter')} came in. The default adapter and local "
        f"training serve such a federation; a diffusion prior takes about {USUAL_POOL} "
        "upstream clients to add to them."
    )
