"""Counting again what needs none of the client's examples."""

from __future__ import annotations

from pathlib import Path

from fedcert.bundles import Bundle
from fedcert.certificates import Certificate, Check, Span
from fedcert.errors import CertificateError
from fedcert.models.base import BaseModel
from fedcert.personalization.keeping import ExportedEvidence

__all__ = ["check_public"]


def check_public(
    certificate: Certificate, bundle: Bundle, adapter: Path, base: BaseModel
) -> list[Check]:
    """Count what a certificate promises about the bundle's reference sample.

    Parameters
    ----------
    certificate : Certificate
        With its record verified.
    bundle : Bundle
        The bundle that it names.
    adapter : Path
        The certified adapter's folder.
    base : BaseModel
        The bundle's base model.

    Returns
    -------
    list of Check
        One for each promise that bundle and adapter alone can show.
    """
    recipe, choice = certificate.recipe, certificate.choice
    kept = zip(recipe.promises, certificate.promises or (), strict=False)
    public = [(promise, outcome) for promise, outcome in kept if promise.public]
    if not public:
        return []
    if bundle.reference is None:
        return [Check("reference sample", False, "the bundle has no reference sample")]
    evidence = ExportedEvidence(
        bundle.task(base, labels=certificate.label_set),
        bundle.prior,
        adapter,
        bundle.reference.take([]),  # none of the client's own
        span=Span(0, 0),
        recipe=recipe,
        reference=bundle.reference,
    )
    checks = []
    for promise, outcome in public:
        ground = recipe.ground(promise, choice, certificate.support_size)
        try:
            promise.recount(outcome, evidence, ground)
        except CertificateError as error:
            checks.append(Check("reference sample", False, str(error)))
        else:
            checks.append(Check("reference sample", True, f"counted again: {outcome.row()}"))
    return checks
