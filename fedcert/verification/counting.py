"""What is counted again with the support set, for whichever adapter is asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedcert.adapters.task import Task
from fedcert.bundles import Bundle
from fedcert.certificates import Certificate, Ground, Outcome, Promise
from fedcert.data.examples import Examples
from fedcert.personalization.committing import in_certified_order
from fedcert.personalization.keeping import EarlyPoints, ExportedEvidence
from fedcert.search import exported_wrong

__all__ = ["Recount"]


@dataclass(frozen=True)
class Recount:
    """A certificate beside its support set.

    Attributes
    ----------
    certificate : Certificate
        Its recipe says which examples certify, and what counts as an error.
    bundle : Bundle
        The bundle that it names.
    task : Task
        The bundle's, with the client's labels.
    ordered : Examples
        The support set in the order that the certificate's seed draws.
    """

    certificate: Certificate
    bundle: Bundle
    task: Task
    ordered: Examples

    @staticmethod
    def of(certificate: Certificate, bundle: Bundle, task: Task, examples: Examples) -> Recount:
        """Put the examples, which come in any order, into the certificate's.

        Parameters
        ----------
        certificate, bundle, task
            As the attributes.
        examples : Examples
            The support set.

        Returns
        -------
        Recount
            Of all of them.
        """
        return Recount(certificate, bundle, task, in_certified_order(certificate, examples))

    @property
    def certifying(self) -> Examples:
        """The examples that certify."""
        recipe, choice = self.certificate.recipe, self.certificate.choice
        return self.ordered.take(recipe.certifies_on(choice, len(self.ordered)).as_slice())

    def errors(self, adapter: Path) -> tuple[int, int]:
        """Return an adapter folder's errors on the certifying examples, and their number."""
        wrong = exported_wrong(
            self.task,
            adapter,
            self.certifying,
            margin_tolerance=self.certificate.recipe.margin_tolerance,
        )
        return int(np.sum(wrong)), len(wrong)

    def evidence(self, adapter: Path, early: EarlyPoints) -> ExportedEvidence:
        """Return what promises are counted from, with what may answer before the adapter."""
        recipe, choice = self.certificate.recipe, self.certificate.choice
        return ExportedEvidence(
            self.task,
            self.bundle.prior,
            adapter,
            self.ordered,
            span=recipe.certifies_on(choice, len(self.ordered)),
            recipe=recipe,
            reference=self.bundle.reference,
            early=early,
        )

    def promised(self) -> Iterator[tuple[Promise[Any], Outcome, Ground]]:
        """Yield each promise with what the certificate says became of it, and its ground.

        Raises
        ------
        ValueError
            If the record holds more or fewer outcomes than the recipe has promises.
        """
        recipe, choice = self.certificate.recipe, self.certificate.choice
        kept = self.certificate.promises or ()
        for promise, outcome in zip(recipe.promises, kept, strict=True):
            yield promise, outcome, recipe.ground(promise, choice, len(self.ordered))
