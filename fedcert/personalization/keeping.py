"""Keeping a recipe's promises: what they look at, from the adapter as it was exported."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fedcert.adapters.classifier_file import read_classifier
from fedcert.adapters.task import Task
from fedcert.arrays import FloatArray
from fedcert.certificates import Answers, Choice, Early, Evidence, Outcome, Recipe, Span
from fedcert.data.examples import Examples
from fedcert.priors import Prior
from fedcert.search import exported_logits

__all__ = [
    "EarlyPoints",
    "ExportedEvidence",
    "answers_of",
    "kept_of",
    "kept_promises",
    "mark_threshold",
    "parted",
]


class EarlyPoints:
    """Operating points that a policy may take first; by default there are none."""

    def early(
        self,
        point: str,
        recipe: Recipe,
        ordered: Examples,
        *,
        span: Span,
    ) -> Early | None:
        """Return what a point's adapter says of the examples; None if it may not be used.

        Parameters
        ----------
        point : str
            The point's name.
        recipe : Recipe
            Of the point that the policy goes on to.
        ordered : Examples
            The support set in its drawn order.
        span : Span
            Which of them certify.

        Returns
        -------
        Early or None
            Its answers, and what they were chosen by.
        """
        return None


class ExportedEvidence(Evidence):
    """What an adapter folder answers on a support set, computed when a promise asks.

    Parameters
    ----------
    task : Task
        The bundle's, with the client's labels.
    prior : Prior
        The bundle's; its center is the default adapter.
    adapter : Path
        The adapter folder that is certified.
    ordered : Examples
        The support set in its drawn order.
    span : Span
        Which of them certify.
    recipe : Recipe
        The recipe that certifies.
    reference : Examples, optional
        The bundle's reference sample, if it has one.
    early : EarlyPoints, optional
        Operating points that are certified already.
    """

    def __init__(
        self,
        task: Task,
        prior: Prior,
        adapter: Path,
        ordered: Examples,
        *,
        span: Span,
        recipe: Recipe,
        reference: Examples | None = None,
        early: EarlyPoints | None = None,
    ) -> None:
        super().__init__(recipe.margin_tolerance)
        self._task, self._prior, self._adapter = task, prior, adapter
        self._reference, self._early = reference, early or EarlyPoints()
        self._recipe, self._span = recipe, span
        self._ordered = ordered
        self._certifying, self._others = parted(ordered, span)

    @cached_property
    def choosing(self) -> Answers | None:
        """The adapter's answers on the examples that do not certify it; None if all do."""
        if not len(self._others):
            return None
        return self._answers(self._adapter, self._others)

    @cached_property
    def certifying(self) -> Answers:
        """The adapter's answers on the m certifying examples."""
        return self._answers(self._adapter, self._certifying)

    @cached_property
    def reference(self) -> Answers:
        """The adapter's answers on the bundle's reference sample."""
        if self._reference is None:
            return super().reference
        return self._answers(self._adapter, self._reference)

    def early(self, point: str) -> Early | None:
        """Return what an early operating point's adapter says; None if there is none."""
        return self._early.early(
            point,
            self._recipe,
            self._ordered,
            span=self._span,
        )

    def of(self, rival: str) -> Answers:
        """Return another model's answers on the same certifying examples."""
        center = self._prior.center()
        vector = np.zeros_like(center) if rival == "base" else center
        with self._task.exported(vector) as folder:
            return self._answers(folder, self._certifying)

    def _answers(self, adapter: Path, examples: Examples) -> Answers:
        return answers_of(self._task, adapter, examples)


def parted(ordered: Examples, span: Span) -> tuple[Examples, Examples]:
    """Return the examples of a span, and all others."""
    places = np.arange(len(ordered))
    certify = (places >= span.start) & (places < span.stop)
    return ordered.take(places[certify]), ordered.take(places[~certify])


def answers_of(task: Task, adapter: Path, examples: Examples) -> Answers:
    """Return what an adapter folder answers on examples.

    Parameters
    ----------
    task : Task
        What it is for.
    adapter : Path
        The folder.
    examples : Examples
        What it is asked.

    Returns
    -------
    Answers
        Its logits, with the true labels.
    """
    return Answers(exported_logits(task, adapter, examples), examples.labels)


def kept_promises(recipe: Recipe, choice: Choice, evidence: Evidence) -> tuple[Outcome, ...]:
    """Count what a recipe promises, in its order.

    Parameters
    ----------
    recipe : Recipe
        With its promises.
    choice : Choice
        What was chosen.
    evidence : Evidence
        What the chosen adapter answers; it is not asked if there is no promise.

    Returns
    -------
    tuple of Outcome
        One for each promise.
    """
    if not recipe.promises:
        return ()
    others = evidence.choosing
    n = len(evidence.certifying) + (0 if others is None else len(others))
    return tuple(
        promise.fulfil(evidence, recipe.ground(promise, choice, n))
        for promise in recipe.promises
    )


def kept_of(
    recipe: Recipe,
    choice: Choice,
    vector: FloatArray,
    ordered: Examples,
    *,
    task: Task,
    prior: Prior,
    reference: Examples | None = None,
) -> tuple[Outcome, ...]:
    """Export an adapter for once, and count what a recipe promises of it.

    Parameters
    ----------
    recipe : Recipe
        With its promises.
    choice : Choice
        What was chosen.
    vector : numpy.ndarray
        The adapter, shape (d,).
    ordered : Examples
        The support set in its drawn order.
    task : Task
        The bundle's.
    prior : Prior
        The bundle's.
    reference : Examples, optional
        The bundle's reference sample, if it has one.

    Returns
    -------
    tuple of Outcome
        One for each promise.
    """
    with task.exported(vector) as folder:
        evidence = ExportedEvidence(
            task,
            prior,
            folder,
            ordered,
            span=recipe.certifies_on(choice, len(ordered)),
            recipe=recipe,
            reference=reference,
        )
        return kept_promises(recipe, choice, evidence)


def mark_threshold(adapter: Path, promises: Iterable[Outcome]) -> None:
    """Write into an adapter folder when it gives no answer, or another answers first."""
    about = read_classifier(adapter)
    # Both, also where there is none: the folder may be that of another attempt.
    marks: dict[str, Any] = {"threshold": None, "early_exit": None}
    for outcome in promises:
        if (threshold := outcome.answers_above()) is not None:
            marks["threshold"] = threshold
        if (early := outcome.early_exit()) is not None:
            marks["early_exit"] = early
    if about is not None:
        replace(about, **marks).write(adapter)
