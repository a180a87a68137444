"""What is counted again with the support set, for whichever adapter is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedcert.adapters.task import Task
from fedcert.bundles import Bundle
from fedcert.certificates import Certificate
from fedcert.data.examples import Examples
from fedcert.data.orders import in_drawn_order
from fedcert.personalization.committing import order_seed
from fedcert.personalization.keeping import EarlyPoints, ExportedEvidence
from fedcert.search import exported_wrong

__all__ = ["certifying_part", "count_errors", "evidence_of", "in_certified_order"]


def in_certified_order(certificate: Certificate, examples: Examples) -> Examples:
    """Return a support set in the order that the certificate's seed draws."""
    seed = order_seed(
        certificate.recipe,
        certificate.candidate.seed,
        client=certificate.client,
        support_size=certificate.support_size,
        labels=certificate.label_set,
        witnessed=certificate.protocol is not None,
    )
    return in_drawn_order(examples, seed)


def certifying_part(certificate: Certificate, ordered: Examples) -> Examples:
    """Return the certifying examples of a support set in its drawn order."""
    span = certificate.recipe.certifies_on(certificate.choice, len(ordered))
    return ordered.take(span.as_slice())


def count_errors(
    certificate: Certificate, task: Task, adapter: Path, ordered: Examples
) -> tuple[int, int]:
    """Count an adapter folder's errors on the certifying examples.

    Parameters
    ----------
    certificate : Certificate
        Its recipe says which examples certify, and what counts as an error.
    task : Task
        The bundle's, with the client's labels.
    adapter : Path
        The adapter folder.
    ordered : Examples
        The support set in its drawn order.

    Returns
    -------
    tuple of int
        Errors, and the number of certifying examples.
    """
    wrong = exported_wrong(
        task,
        adapter,
        certifying_part(certificate, ordered),
        margin_tolerance=certificate.recipe.margin_tolerance,
    )
    return int(np.sum(wrong)), len(wrong)


def evidence_of(
    certificate: Certificate,
    bundle: Bundle,
    task: Task,
    adapter: Path,
    ordered: Examples,
    early: EarlyPoints,
) -> ExportedEvidence:
    """Offer what a certificate's promises are counted from.

    Parameters
    ----------
    certificate : Certificate
        The certificate.
    bundle : Bundle
        The bundle that it names.
    task : Task
        The bundle's, with the client's labels.
    adapter : Path
        The folder of the adapter that answers.
    ordered : Examples
        The support set in its drawn order.
    early : EarlyPoints
        What may answer first.

    Returns
    -------
    ExportedEvidence
        Computed when a promise asks.
    """
    recipe = certificate.recipe
    return ExportedEvidence(
        task,
        bundle.prior,
        adapter,
        ordered,
        span=recipe.certifies_on(certificate.choice, len(ordered)),
        recipe=recipe,
        reference=bundle.reference,
        early=early,
    )
