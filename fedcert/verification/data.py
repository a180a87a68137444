"""Checks with the support set: the count of errors, and the choice, made again."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from fedcert.adapters.classifier_file import CLASSIFIER_FILE, read_classifier
from fedcert.adapters.constants import constant_adapters
from fedcert.adapters.peft_format import write_peft_adapter
from fedcert.adapters.task import Task
from fedcert.bundles import Bundle
from fedcert.certificates import Certificate, Check, ExitPromise, Sample
from fedcert.data.examples import Examples
from fedcert.data.identity import collapsed_form
from fedcert.data.orders import in_drawn_order
from fedcert.errors import AdapterError, CertificateError
from fedcert.models.base import BaseModel
from fedcert.personalization.committing import order_seed
from fedcert.personalization.keeping import ExportedEvidence
from fedcert.personalization.points import CertifiedPoint, CertifiedPoints
from fedcert.personalization.unlabeled import in_common
from fedcert.priors.base import FloatArray
from fedcert.search import BatchedScorer, SupportSession, exported_wrong
from fedcert.verification.checks import MEMBERSHIP_TOLERANCE

__all__ = ["REFINEMENT_TOLERANCE", "check_data"]

REFINEMENT_TOLERANCE = 1e-3
"""How far a refined adapter may lie from the one that is made again.

A posterior mean repeats itself to rounding unless a rounding tips one proposal. An adapter that
was tuned on the certifying examples could lie within this distance too, so beyond
`MEMBERSHIP_TOLERANCE` the one that is made again has to earn the same bound.
"""


def check_data(
    certificate: Certificate,
    bundle: Bundle,
    base: BaseModel,
    adapter: Path,
    examples: Examples,
    early: CertifiedPoint | None = None,
    *,
    unlabeled: Examples | None = None,
) -> list[Check]:
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
    list of Check
        One check for each thing that the examples can show.
    """
    checks = [_support(certificate, examples)]
    if not checks[0].passed:
        return checks
    if certificate.unlabeled is not None and unlabeled is not None:
        checks.append(_unlabeled(certificate, examples, unlabeled))
        if not checks[-1].passed:
            return checks
    if note := base.note_on(bundle.base_digest):
        checks.append(Check("base model", True, f"its weights are the bundle's; {note}"))
    about = read_classifier(adapter)
    if about is not None and not base.goes_by(about.base_digest):
        detail = f"{CLASSIFIER_FILE} names another base model ({about.base_digest[:12]})"
        checks.append(Check("adapter's base model", False, detail))
    if bundle.takes_labels != (certificate.label_texts is not None):
        detail = "certificate and bundle do not agree whose the labels are"
        return [*checks, Check("error count", False, detail)]
    task = bundle.task(base, labels=certificate.label_set)
    ordered = in_drawn_order(examples, _order(certificate))
    try:
        errors, trials = _count(certificate, task, adapter, ordered)
    except AdapterError as error:
        # The folder's head is for other labels than the certificate's.
        return [*checks, Check("error count", False, str(error))]
    right = (errors, trials) == (certificate.errors, certificate.certified_on)
    detail = f"counted {errors} errors on {trials} examples"
    if not right:
        detail += f"; the certificate says {certificate.errors} on {certificate.certified_on}"
    checks.append(Check("error count", right, detail))
    checks.append(_sample(certificate, examples, _certifying(certificate, ordered)))
    if certificate.recipe.promises:
        checks.append(_promises(certificate, bundle, task, adapter, ordered, early))
    can_repeat = certificate.unlabeled is None or unlabeled is not None
    if can_repeat and not certificate.recipe.pays_for_choosing(len(ordered)):
        checks.append(_choice(certificate, bundle, task, ordered, unlabeled))
    return checks


def _unlabeled(certificate: Certificate, examples: Examples, unlabeled: Examples) -> Check:
    """Check that these are the inputs without labels, and that none of them certifies."""
    known = certificate.unlabeled
    if known is None or unlabeled.inputs_digest(known.salt) != known.digest:
        detail = "these are not the inputs without labels that the certificate was made from"
        return Check("unlabeled inputs", False, detail)
    if len(unlabeled) != known.count:
        detail = f"there are {len(unlabeled)}, and the certificate says {known.count}"
        return Check("unlabeled inputs", False, detail)
    count, stated = in_common(examples, unlabeled), certificate.sample or Sample()
    found = f"{count} of the {len(examples)} examples have an input that is among them"
    if count > stated.repeats:
        detail = f"{found}, and the certificate states {stated.repeats} to be new observations"
        return Check("unlabeled inputs", False, detail)
    return Check("unlabeled inputs", True, f"these are the inputs without labels; {found}")


def _order(certificate: Certificate) -> str:
    return order_seed(
        certificate.recipe,
        certificate.candidate.seed,
        client=certificate.client,
        support_size=certificate.support_size,
        labels=certificate.label_set,
        witnessed=certificate.protocol is not None,
    )


def _promises(
    certificate: Certificate,
    bundle: Bundle,
    task: Task,
    adapter: Path,
    ordered: Examples,
    early: CertifiedPoint | None,
) -> Check:
    """Count again what the recipe promises."""
    recipe, choice = certificate.recipe, certificate.choice
    points = [] if early is None else [early]
    evidence = ExportedEvidence(
        task,
        bundle.prior,
        adapter,
        ordered,
        span=recipe.certifies_on(choice, len(ordered)),
        recipe=recipe,
        reference=bundle.reference,
        early=CertifiedPoints(points, client=certificate.client),
    )
    try:
        for promise, outcome in zip(recipe.promises, certificate.promises or (), strict=True):
            if early is None and isinstance(promise, ExitPromise):
                continue
            promise.recount(outcome, evidence, recipe.ground(promise, choice, len(ordered)))
    except CertificateError as error:
        return Check("promised counts", False, str(error))
    except ValueError:
        return Check("promised counts", False, "the record does not hold what is promised")
    left = early is None and any(isinstance(each, ExitPromise) for each in recipe.promises)
    which = "every promise, but for the early exit" if left else "every promise"
    return Check("promised counts", True, f"the examples give the counts of {which}")


def _count(
    certificate: Certificate, task: Task, adapter: Path, ordered: Examples
) -> tuple[int, int]:
    """Return errors of an adapter folder on the certifying examples, and their number."""
    wrong = exported_wrong(
        task,
        adapter,
        _certifying(certificate, ordered),
        margin_tolerance=certificate.recipe.margin_tolerance,
    )
    return int(np.sum(wrong)), len(wrong)


def _certifying(certificate: Certificate, ordered: Examples) -> Examples:
    span = certificate.recipe.certifies_on(certificate.choice, len(ordered))
    return ordered.take(span.as_slice())


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
    """Check what the certificate says of examples that are repeated or cannot be read.

    Certificates from before it was told apart say nothing of repeats: then they are told.
    """
    stated = certificate.sample or Sample()
    repeated, unreadable = examples.duplicates, certifying.always_wrong
    found = (
        f"{repeated} of the {len(examples)} examples have an input that occurs more than once; "
        f"{unreadable} of the certifying ones cannot be read, or have no label of the task"
    )
    silent = certificate.sample is None and not unreadable
    if silent or (stated.unreadable, stated.duplicates) == (unreadable, repeated):
        return Check("sample", True, found)
    return Check("sample", False, f"{found}; the certificate says otherwise")


def _choice(
    certificate: Certificate,
    bundle: Bundle,
    task: Task,
    ordered: Examples,
    unlabeled: Examples | None,
) -> Check:
    """Choose again: what was chosen, weighted, or refined on the choosing examples alone."""
    recipe, choice = certificate.recipe, certificate.choice
    session = SupportSession(
        recipe,
        bundle.prior,
        # In float32, as devices rank whatever is chosen again here.
        BatchedScorer(task.model(), margin_tolerance=recipe.margin_tolerance),
        ordered,
        seed=certificate.candidate.seed,
        constants=constant_adapters(bundle.space, len(certificate.labels)),
        unlabeled=unlabeled,
    )
    try:
        if recipe.refines:
            return _refined(certificate, task, ordered, session)
        recipe.check_repeated(choice, session)
    except CertificateError as error:
        return Check("choice", False, str(error))
    return Check("choice", True, "the recipe makes this choice from these examples")


def _refined(
    certificate: Certificate,
    task: Task,
    ordered: Examples,
    session: SupportSession,
) -> Check:
    """Make the adapter again from the choosing examples."""
    recipe, choice = certificate.recipe, certificate.choice
    if recipe.selects_from_counts():
        # All finalists are paid for: only what this one was made from matters.
        made: FloatArray = recipe.refine(session.only(recipe.choosing(session.n)))[choice.index]
    else:
        again = recipe.choose(session)
        if again.choice != choice:
            return Check("choice", False, "the recipe chooses another hypothesis")
        made = again.vector
    stated = certificate.adapter_vector
    if made.shape != stated.shape:
        detail = "the recipe makes an adapter of another length from these examples"
        return Check("choice", False, detail)
    distance = float(np.max(np.abs(made - stated)))
    if distance > REFINEMENT_TOLERANCE:
        return Check(
            "choice",
            False,
            f"the recipe makes another adapter from these examples (difference "
            f"{distance:.1e}); a refinement repeats itself only where arithmetic rounds alike, "
            "so try the kind of machine that made it",
        )
    found = f"the recipe made the same adapter again (difference {distance:.1e})"
    if distance <= MEMBERSHIP_TOLERANCE:
        return Check("choice", True, found)
    with tempfile.TemporaryDirectory() as folder:
        write_peft_adapter(
            task.space, made, Path(folder), base_name=task.base.name, base=task.base
        )
        errors, trials = _count(certificate, task, Path(folder), ordered)
    if errors > certificate.errors:
        return Check(
            "choice",
            False,
            f"{found}, but that one makes {errors} errors on the {trials} certifying examples, "
            f"and the certified one {certificate.errors}: it may have been tuned on them",
        )
    return Check("choice", True, f"{found}, and that one earns the bound as well")
