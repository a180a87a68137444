"""Checks of the choice: made again from the choosing examples, and what that adapter earns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from fedcert.adapters.constants import constant_adapters
from fedcert.adapters.task import Task
from fedcert.arrays import FloatArray
from fedcert.certificates import (
    Answers,
    Certificate,
    Check,
    Chosen,
    Early,
    ExitPromise,
    Recipe,
    Span,
    Unchecked,
)
from fedcert.data.examples import Examples
from fedcert.errors import CertificateError
from fedcert.personalization.keeping import EarlyPoints, answers_of, parted
from fedcert.personalization.points import CertifiedPoint, CertifiedPoints
from fedcert.search import BatchedScorer, SupportSession
from fedcert.verification.checks import MEMBERSHIP_TOLERANCE
from fedcert.verification.counting import Recount

__all__ = ["REFINEMENT_TOLERANCE", "MadeAgain", "check_choice", "early_again", "promises_less"]

REFINEMENT_TOLERANCE = 1e-3
"""How far a refined adapter may lie from the one that is made again.

A posterior mean repeats itself to rounding unless a rounding tips one proposal. An adapter that
was tuned on the certifying examples could lie within this distance too. Beyond
`MEMBERSHIP_TOLERANCE` the one that is made again has to earn the same bound, and every promise
from the same examples; and since a tuned one can have another risk and as many errors, whether
it was tuned is left open.
"""
_MOST_NAMED = 5


def check_choice(
    again: Recount, *, unlabeled: Examples | None, early: EarlyPoints
) -> tuple[Check, Unchecked | None]:
    """Choose again: what was chosen, weighted, or refined on the choosing examples alone.

    Parameters
    ----------
    again : Recount
        The certificate beside its support set.
    unlabeled : Examples or None
        The inputs without labels that the certificate names.
    early : EarlyPoints
        What may answer first, as made again (`early_again`).

    Returns
    -------
    tuple
        A check named "choice", and what it leaves open.
    """
    recipe, choice = again.certificate.recipe, again.certificate.choice
    try:
        recipe.check_choice(choice, len(again.ordered))
        if not recipe.refines:
            others = recipe.check_repeated(choice, _session(again, unlabeled))
            found = "the recipe makes this choice from these examples"
            if recipe.has_first_stage:
                return Check("choice", True, found), _with_less_weight(others, again)
            if others:
                found += f", or, where arithmetic rounds otherwise, {_numbered(others)}"
            vectors = [other.vector for other in others]
            return _earned_by(vectors, again, early, found), _between(others)
        made = _made_again(again, unlabeled)
    except CertificateError as error:
        return Check("choice", False, str(error)), None
    distance = _distance(again, made)
    found = f"the recipe made the same adapter again (difference {distance:.1e})"
    if distance <= MEMBERSHIP_TOLERANCE:
        return Check("choice", True, found), None
    left = Unchecked(
        "refinement",
        f"whether the certified adapter was tuned on the certifying examples, within "
        f"{distance:.0e} of the one that is made again here: machines round otherwise, and a "
        "verifier on another kind of machine cannot tell the two apart",
        "the kind of machine that made it",
    )
    return _earned_by([made], again, early, found), left


def _with_less_weight(others: Sequence[Chosen], again: Recount) -> Unchecked | None:
    """Say what the weight that follows here gives, where that is less than what is stated."""
    if not others:
        return None
    certificate, [here] = again.certificate, others
    trials = len(again.certifying)
    bound = certificate.recipe.bound(certificate.errors, trials, here.choice)
    if bound > certificate.bound:
        less = f"the bound is {bound:.6f}, and not {certificate.bound:.6f}"
    elif certificate.recipe.promises:
        less = "its promises have less of delta than they were computed with"
    else:
        return None
    return Unchecked(
        "first stage",
        "whether the candidates' errors on the choosing examples are as its machine counted "
        "them, or as the bound likes them best among all that rounding explains: from those "
        f"counted here {less}",
        "the kind of machine that made it",
    )


def _between(others: Sequence[Chosen]) -> Unchecked | None:
    """Say what remains where the certified candidate is not the one that is chosen here."""
    if not others:
        return None
    return Unchecked(
        "choice",
        f"whether its machine chose this candidate, or its signer chose it before "
        f"{_numbered(others)} for what it does on the certifying examples: all of them earn "
        "the bound, but whoever could go by either has a false one up to twice as often",
        "the kind of machine that made it",
    )


def _numbered(others: Sequence[Chosen]) -> str:
    first = ", ".join(str(other.index) for other in others[:_MOST_NAMED])
    more = f", and {len(others) - _MOST_NAMED} more" * (len(others) > _MOST_NAMED)
    return f"candidate {first}{more}"


def _earned_by(
    made: Sequence[FloatArray], again: Recount, early: EarlyPoints, found: str
) -> Check:
    """Check that all that another rounding chooses earns what the certified adapter does."""
    for vector in made:
        with again.task.exported(vector) as folder:
            if less := _earns_less(again, folder, early):
                return Check(
                    "choice",
                    False,
                    f"{found}, but {less}: the certified one may have been picked or tuned on "
                    "the certifying examples, or its machine rounds otherwise; then try that "
                    "kind of machine",
                )
    earned = f", and {'that one earns' if len(made) == 1 else 'all of them earn'} the bound as"
    return Check("choice", True, f"{found}{earned} well" if made else found)


@contextmanager
def early_again(
    certificate: Certificate,
    early: CertifiedPoint | None,
    examples: Examples,
    unlabeled: Examples | None,
) -> Iterator[list[EarlyPoints]]:
    """Offer the early operating point with each adapter that its recipe may have made.

    Parameters
    ----------
    certificate : Certificate
        Of the point that is gone on to.
    early : CertifiedPoint or None
        The early point, whose own certificate is verified elsewhere.
    examples : Examples
        The support set, in any order.
    unlabeled : Examples or None
        The inputs without labels that the certificates name.

    Yields
    ------
    list of EarlyPoints
        One at least. The first is as it was handed in, or, of a refined adapter that is another
        one here, with that. Others have a near-equal candidate each; every one of `MadeAgain`
        has to earn the exit.
    """
    points = CertifiedPoints([] if early is None else [early], client=certificate.client)
    exits = any(isinstance(each, ExitPromise) for each in certificate.recipe.promises)
    if early is None or not exits:
        yield [points]
        return
    made = _early_vectors(early, examples, unlabeled)
    with ExitStack() as stack:
        folders = [stack.enter_context(early.task.exported(vector)) for vector in made]
        again: list[EarlyPoints] = [MadeAgain(points, early.task, each) for each in folders]
        yield again if made and early.certificate.recipe.refines else [points, *again]


class MadeAgain(EarlyPoints):
    """Early points whose answers are those of an adapter that was made again."""

    def __init__(self, points: EarlyPoints, task: Task, adapter: Path) -> None:
        self._points, self._task, self._adapter = points, task, adapter

    def early(
        self, point: str, recipe: Recipe, ordered: Examples, *, span: Span
    ) -> Early | None:
        """Return what it says of the examples; None if it may not be used."""
        found = self._points.early(point, recipe, ordered, span=span)
        if found is None:
            return None
        certifying, choosing = parted(ordered, span)
        return replace(
            found,
            choosing=self._answers(choosing) if len(choosing) else None,
            certifying=self._answers(certifying),
        )

    def _answers(self, examples: Examples) -> Answers:
        return answers_of(self._task, self._adapter, examples)


def _early_vectors(
    early: CertifiedPoint, examples: Examples, unlabeled: Examples | None
) -> list[FloatArray]:
    """Make an early point's adapter again: where it is another one, or may be, all that it is.

    None of them where its own verification says why it cannot be made again.
    """
    own = early.certificate
    given = None if own.unlabeled is None else unlabeled
    known = own.unlabeled is None or unlabeled is not None
    ours = own.digests.bundle == early.bundle.digest and own.support_size == len(examples)
    if not (known and ours):
        return []
    again = Recount.of(own, early.bundle, early.task, examples)
    try:
        own.recipe.check_choice(own.choice, len(examples))
        if not own.recipe.refines:
            others = own.recipe.check_repeated(own.choice, _session(again, given))
            return [other.vector for other in others if other.index != own.choice.index]
        made = _made_again(again, given)
    except CertificateError:
        return []
    return [] if _distance(again, made) <= MEMBERSHIP_TOLERANCE else [made]


def _session(again: Recount, unlabeled: Examples | None) -> SupportSession:
    certificate, recipe = again.certificate, again.certificate.recipe
    return SupportSession(
        recipe,
        again.bundle.prior,
        # In float32, as devices rank whatever is chosen again here.
        BatchedScorer(again.task.model(), margin_tolerance=recipe.margin_tolerance),
        again.ordered,
        seed=certificate.candidate.seed,
        constants=constant_adapters(again.bundle.space, len(certificate.labels)),
        unlabeled=unlabeled,
    )


def _made_again(again: Recount, unlabeled: Examples | None) -> FloatArray:
    """Make a refined adapter again from the choosing examples.

    Raises
    ------
    CertificateError
        If it is another one than the certified.
    """
    certificate, session = again.certificate, _session(again, unlabeled)
    recipe, choice = certificate.recipe, certificate.choice
    if recipe.selects_from_counts():
        # All finalists are paid for: only what this one was made from matters.
        made: FloatArray = recipe.refine(session.only(recipe.choosing(session.n)))[choice.index]
    else:
        chosen = recipe.choose(session)
        if chosen.choice != choice:
            raise CertificateError("the recipe chooses another hypothesis")
        made = chosen.vector
    if made.shape != certificate.adapter_vector.shape:
        raise CertificateError(
            "the recipe makes an adapter of another length from these examples"
        )
    distance = _distance(again, made)
    if distance > REFINEMENT_TOLERANCE:
        raise CertificateError(
            f"the recipe makes another adapter from these examples (difference "
            f"{distance:.1e}); a refinement repeats itself only where arithmetic rounds alike, "
            "so try the kind of machine that made it"
        )
    return made


def _distance(again: Recount, made: FloatArray) -> float:
    return float(np.max(np.abs(made - again.certificate.adapter_vector)))


def _earns_less(again: Recount, adapter: Path, early: EarlyPoints) -> str | None:
    """Say what an adapter does not earn of the bound and the promises; None if it does."""
    errors, trials = again.errors(adapter)
    if errors > again.certificate.errors:
        return (
            f"that one makes {errors} errors on the {trials} certifying examples, and the "
            f"certified one {again.certificate.errors}"
        )
    return promises_less(again, adapter, early)


def promises_less(
    again: Recount, adapter: Path, early: EarlyPoints, *, exits_alone: bool = False
) -> str | None:
    """Say which promise an adapter does not earn.

    What is counted on a public sample is left out: whoever signs may have looked at that, which
    its words take for granted.

    Parameters
    ----------
    again : Recount
        The certificate beside its support set.
    adapter : Path
        The adapter's folder.
    early : EarlyPoints
        What may answer first.
    exits_alone : bool (default: False)
        Whether only early exits are counted.

    Returns
    -------
    str or None
        A clause; None if it earns all of them.
    """
    evidence = again.evidence(adapter, early)
    try:
        for promise, outcome, ground in again.promised():
            exits = isinstance(promise, ExitPromise)
            if promise.public or (exits_alone and not exits):
                continue
            found = promise.again(outcome, evidence, ground)
            # Without the early point nothing can be said of it, which is listed as unchecked.
            if not (exits and not promise.gives(found)) and not outcome.earned_by(found):
                return f"that one promises less ({found.row()})"
    except CertificateError as error:
        return str(error)
    except ValueError:
        return "the record does not hold what is promised"
    return None
