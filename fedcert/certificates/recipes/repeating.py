"""Whether a choice can be a recipe's, when its examples are at hand again.

Arithmetic rounds otherwise on another machine, so which of two near-equal candidates wins
cannot be repeated there. One rule says what may differ: every difference of two logits may
have moved by the recipe's margin tolerance, which is what counting allows for as well. So a
prediction that counted as right may count as an error where its margin is at most twice the
tolerance, one that counted as an error may be right where its margin is positive, and an
example's loss (the logarithm of a sum of exponentials of such differences) may have moved by
the tolerance. What is a recipe's choice under some such rounding passes; nothing else does.
"""

from __future__ import annotations

import numpy as np

from fedcert.certificates.counts import lowest
from fedcert.certificates.recipes.parts import FirstStage, Span
from fedcert.certificates.recipes.session import Chosen, Session
from fedcert.errors import CertificateError

__all__ = ["check_first_stage", "check_lowest"]


def check_lowest(
    session: Session, span: Span, index: int, tolerance: float
) -> tuple[Chosen, ...]:
    """Check that a candidate has the lowest (errors, loss) on some examples, up to rounding.

    Near-equal candidates can be many where losses are small. Whoever may take any of them could
    look for the one that does best on the certifying examples, a search that nobody pays for.
    So all of them have to earn the bound. Which they are follows from the choosing examples
    alone; if the certified one is worse than its bound, so is the worst of them, whose bound is
    no higher, and that one is a single adapter, which certifying examples did not choose. So a
    false one passes with probability at most delta; whoever may also certify the one that wins
    here, which nothing more is asked of, has two such chances, at most 2 delta together.

    Parameters
    ----------
    session : Session
        The client's examples and the candidates.
    span : Span
        The choosing examples.
    index : int
        The candidate.
    tolerance : float
        The recipe's margin tolerance.

    Returns
    -------
    tuple of Chosen
        The others that may have the lowest under some rounding; none where this candidate has
        the lowest here.

    Raises
    ------
    CertificateError
        If another candidate has fewer errors, or as many and a lower loss.
    """
    if session.at(tolerance).best(span).index == index:
        return ()
    loose, tight = (session.at(level).count(span, span) for level in (2 * tolerance, 0.0))
    rival = int(lowest(loose.choosing, loose.losses)[0])
    [most], [fewest], [losses] = loose.choosing, tight.choosing, tight.losses
    level = losses <= losses[rival] + 2 * tolerance * span.size
    near = (fewest < most[rival]) | ((fewest == most[rival]) & level)
    if near[index]:
        return tuple(
            session.candidate(int(other)) for other in np.flatnonzero(near) if other != index
        )
    raise CertificateError(
        f"candidate {index} has {fewest[index]} errors or more on the {span.size} choosing "
        f"examples, at a loss of {losses[index] / span.size:.4f}; candidate {rival} has "
        f"{most[rival]} or fewer, at {losses[rival] / span.size:.4f}: the recipe chooses that "
        "one"
    )


def check_first_stage(
    session: Session, span: Span, index: int, stage: FirstStage, tolerance: float
) -> FirstStage:
    """Check how many errors all candidates are said to have on the choosing examples.

    Every candidate is paid for by the weight that follows, so which of them was taken on the
    certifying examples needs no check. Only together are the weights of one rounding no more
    than one; whoever takes for each candidate the rounding that favors it has more.

    Parameters
    ----------
    session, span, index, tolerance
        As in `check_lowest`.
    stage : FirstStage
        What a certificate says.

    Returns
    -------
    FirstStage
        What it is by the arithmetic here.

    Raises
    ------
    CertificateError
        If the examples say otherwise.
    """
    fewest, here, most = (
        session.at(level).count(span, span).choosing[0]
        for level in (0.0, tolerance, 2 * tolerance)
    )
    if not fewest[index] <= stage.errors <= most[index]:
        raise CertificateError(
            f"candidate {index} has {_between(fewest[index], most[index])} errors on the "
            f"{span.size} choosing examples; the certificate says {stage.errors}"
        )
    levels = np.arange(len(stage.profile))
    said = np.cumsum(stage.profile)
    low, high = ((errors[None] <= levels[:, None]).sum(axis=1) for errors in (most, fewest))
    wrong = np.flatnonzero((said < low) | (said > high))
    if wrong.size:
        level = int(wrong[0])
        raise CertificateError(
            f"{_between(low[level], high[level])} candidates have at most {level} errors on "
            f"the {span.size} choosing examples; the certificate says {said[level]}"
        )
    return FirstStage.of(here, span.size, index)


def _between(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"
