"""Checks with the support set: the count of errors, and the choice, made again."""

from __future__ import annotations

from pathlib import Path

from fedcert.adapters.classifier_file import CLASSIFIER_FILE, read_classifier
from fedcert.bundles import Bundle
from fedcert.certificates import (
    Certificate,
    Check,
    ExitPromise,
    Sample,
    Unchecked,
    VerificationReport,
)
from fedcert.data.examples import Examples
from fedcert.data.identity import collapsed_form
from fedcert.errors import AdapterError, CertificateError
from fedcert.models.base import BaseModel
from fedcert.personalization.points import CertifiedPoint, CertifiedPoints
from fedcert.personalization.unlabeled import overlap
from fedcert.verification.choice import MadeAgain, check_choice, early_again, promises_less
from fedcert.verification.counting import Recount

__all__ = ["check_data"]


def check_data(
    certificate: Certificate,
    bundle: Bundle,
    base: BaseModel,
    adapter: Path,
    examples: Examples,
    early: CertifiedPoint | None = None,
    *,
    unlabeled: Examples | None = None,
) -> VerificationReport:
    """Check the support set's digest, count the errors again, and choose again.

    Where the same examples choose and certify, every candidate is paid for, and any of them
    may have been chosen.

    Parameters
    ----------
    certificate : Certificate
        The certificate.
    bundle : Bundle
        The bundle that it names.
    base : BaseModel
        The bundle's base model.
    adapter : Path
        An adapter folder.
    examples : Examples
        The support set, in any order.
    early : CertifiedPoint, optional
        The operating point of an early exit, if the certificate promises one; without it the
        exit's counts are left out.
    unlabeled : Examples, optional
        The inputs without labels that the certificate names, in any order; without them the
        adapter is not made again.

    Returns
    -------
    VerificationReport
        A check for each thing that the examples can show, and what they left open.
    """
    checks = [_support(certificate, examples)]
    if not checks[0].passed:
        return VerificationReport(tuple(checks))
    if certificate.unlabeled is not None and unlabeled is not None:
        checks.append(_unlabeled(certificate, examples, unlabeled))
        if not checks[-1].passed:
            return VerificationReport(tuple(checks))
    if note := base.note_on(bundle.base_digest):
        checks.append(Check("base model", True, f"its weights are the bundle's; {note}"))
    about = read_classifier(adapter)
    if about is not None and not base.goes_by(about.base_digest):
        detail = f"{CLASSIFIER_FILE} names another base model ({about.base_digest[:12]})"
        checks.append(Check("adapter's base model", False, detail))
    if bundle.takes_labels != (certificate.label_texts is not None):
        detail = "certificate and bundle do not agree whose the labels are"
        return VerificationReport((*checks, Check("error count", False, detail)))
    task = bundle.task(base, labels=certificate.label_set)
    recount = Recount.of(certificate, bundle, task, examples)
    try:
        errors, trials = recount.errors(adapter)
    except AdapterError as error:
        # The folder's head is for other labels than the certificate's.
        return VerificationReport((*checks, Check("error count", False, str(error))))
    right = (errors, trials) == (certificate.errors, certificate.certified_on)
    detail = f"counted {errors} errors on {trials} examples"
    if not right:
        detail += f"; the certificate says {certificate.errors} on {certificate.certified_on}"
    checks.append(Check("error count", right, detail))
    checks.append(_sample(certificate, examples, recount.certifying))
    opened: list[Unchecked] = []
    if certificate.recipe.promises:
        check, opened = _promises(recount, adapter, early)
        checks.append(check)
    named = None if certificate.unlabeled is None else unlabeled
    repeats = certificate.unlabeled is None or unlabeled is not None
    repeats &= not certificate.recipe.pays_for_choosing(len(examples))
    with early_again(certificate, early, examples, unlabeled) as again:
        if repeats:
            check, left = check_choice(recount, unlabeled=named, early=again[0])
            checks.append(check)
            opened += [] if left is None else [left]
        made = [point for point in again if isinstance(point, MadeAgain)]
        found = (promises_less(recount, adapter, each, exits_alone=True) for each in made)
        less = next(filter(None, found), None)
        if made:
            detail = less or "with its adapter made again the exit earns its bounds as well"
            checks.append(Check("early exit", less is None, detail))
    return VerificationReport(tuple(checks), tuple(opened))


def _unlabeled(certificate: Certificate, examples: Examples, unlabeled: Examples) -> Check:
    """Check that these are the inputs without labels, and that none of them certifies."""
    known = certificate.unlabeled
    if known is None or unlabeled.inputs_digest(known.salt) != known.digest:
        detail = "these are not the inputs without labels that the certificate was made from"
        return Check("unlabeled inputs", False, detail)
    if len(unlabeled) != known.count:
        detail = f"there are {len(unlabeled)}, and the certificate says {known.count}"
        return Check("unlabeled inputs", False, detail)
    (count, most), stated = overlap(examples, unlabeled), certificate.sample or Sample()
    found = f"{count} of the {len(examples)} examples have an input that is among them"
    if count > stated.repeats:
        detail = f"{found}, and the certificate states {stated.repeats} to be new observations"
        return Check("unlabeled inputs", False, detail)
    if most:
        detail = f"{found}: most of these are the same observations, whatever is stated"
        return Check("unlabeled inputs", False, detail)
    return Check("unlabeled inputs", True, f"these are the inputs without labels; {found}")


def _promises(
    recount: Recount, adapter: Path, early: CertifiedPoint | None
) -> tuple[Check, list[Unchecked]]:
    """Count again what the recipe promises."""
    client, promises = recount.certificate.client, recount.certificate.recipe.promises
    points = CertifiedPoints([] if early is None else [early], client=client)
    evidence, opened = recount.evidence(adapter, points), list[str | None]()
    try:
        for promise, outcome, ground in recount.promised():
            if early is None and isinstance(promise, ExitPromise):
                continue
            opened.append(promise.recount(outcome, evidence, ground))
    except CertificateError as error:
        return Check("promised counts", False, str(error)), []
    except ValueError:
        return Check("promised counts", False, "the record does not hold what is promised"), []
    left = early is None and any(isinstance(each, ExitPromise) for each in promises)
    which = "every promise, but for the early exit" if left else "every promise"
    kind = "the kind of machine that made it"
    return (
        Check("promised counts", True, f"the examples give the counts of {which}"),
        [Unchecked("threshold", each, kind) for each in opened if each is not None],
    )


def _support(certificate: Certificate, examples: Examples) -> Check:
    """Check that these are the certified examples, by the digest of now or of before."""
    seed, stated = certificate.candidate.seed, certificate.digests.support
    if examples.multiset_digest(seed) == stated:
        return Check("support set", True, "these are the certified examples")
    if examples.multiset_digest(seed, collapsed_form) == stated:
        detail = "these are the certified examples, as far as a digest without case can show"
        return Check("support set", True, detail)
    return Check(
        "support set",
        False,
        "these are not the examples that the certificate was made from",
    )


def _sample(certificate: Certificate, examples: Examples, certifying: Examples) -> Check:
    """Check what the certificate says of examples that are repeated or cannot be read."""
    stated = certificate.sample or Sample()
    repeated, unreadable = examples.duplicates, certifying.always_wrong
    found = (
        f"{repeated} of the {len(examples)} examples have an input that occurs more than once; "
        f"{unreadable} of the certifying ones cannot be read, or have no label of the task"
    )
    if (stated.unreadable, stated.duplicates) == (unreadable, repeated):
        return Check("sample", True, found)
    return Check("sample", False, f"{found}; the certificate says otherwise")
