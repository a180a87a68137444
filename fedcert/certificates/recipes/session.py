"""What a recipe may do with one client's support set when it chooses.

A recipe chooses through a `Session` and through nothing else, so that the rule that serves a
client is the rule that is planned with, played out, and verified. Here is the interface, and
the session over a table of known predictions; the one over a model is
`fedcert.search.session.SupportSession`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fedcert.arrays import FloatArray
from fedcert.certificates.counts import Counts, ErrorTable, Refined, lowest
from fedcert.certificates.recipes.parts import Choice, Span
from fedcert.errors import CertificateError

__all__ = ["Chosen", "Session", "TableSession", "refined_counts"]

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Chosen:
    """What a recipe hands to certification.

    Attributes
    ----------
    choice : Choice
        The number of the candidate, or of the finalist, and all else that its share of delta
        follows from.
    vector : numpy.ndarray
        Float64, shape ``(d,)``.
    """

    choice: Choice
    vector: FloatArray

    @property
    def index(self) -> int:
        """Its number."""
        return self.choice.index


class Session(ABC):
    """One client's n examples in the order in which they are spent, and M candidates.

    Attributes
    ----------
    n : int
        Number of examples.
    candidates : int
        M; constant predictors, if the recipe has any, are the first of them.
    chunk : int
        How many candidates are drawn at a time. It does not change what is chosen.
    number : float
        What a randomized bound takes from the seed; 1 for one that is not randomized.
    """

    n: int
    candidates: int
    chunk: int = 1024
    number: float = 1.0

    @abstractmethod
    def draw(self, *, start: int, count: int) -> FloatArray:
        """Return candidates `start` to ``start + count - 1``, shape ``(count, d)``."""

    def center(self) -> FloatArray:
        """Return the prior's center, shape ``(d,)``; `CertificateError` where there is none."""
        raise CertificateError("this session has no prior, and so no center of one")

    @abstractmethod
    def score(self, vectors: FloatArray, span: Span) -> tuple[BoolArray, FloatArray]:
        """Return which predictions are wrong, and the losses, each ``(count, span.size)``."""

    @abstractmethod
    def posterior_means(
        self, *, candidates: int, chains: int, steps: int, count: int = 1
    ) -> FloatArray:
        """Return mean adapters of the posterior given all examples of this session.

        Parameters
        ----------
        candidates, chains, steps, count
            As in `fedcert.search.refinement.posterior_means`.

        Returns
        -------
        numpy.ndarray
            Float64, shape ``(count, d)``.
        """

    def posterior_mode(self, *, steps: int) -> FloatArray:
        """Return the posterior's mode given all examples of this session, shape ``(d,)``.

        Under a Gaussian with the prior's center and axes, after so many steps.
        """
        raise _no_model()

    def finetuned(self, *, steps: int, learning_rate: float, pull: float) -> FloatArray:
        """Return an adapter that was trained from the center on all examples of this session.

        Parameters
        ----------
        steps, learning_rate, pull
            As in `fedcert.search.learning.finetuned`.

        Returns
        -------
        numpy.ndarray
            Float64, shape ``(d,)``.
        """
        raise _no_model()

    def local_head(self) -> FloatArray:
        """Return a head that was trained on all examples of this session, shape ``(d,)``.

        It stands on the frozen base model, and nothing of the prior is in it.
        """
        raise _no_model()

    def tuned_head(self) -> FloatArray:
        """Return the center with a head that was trained on all examples of this session.

        Shape ``(d,)``, or longer where the head moves the embeddings of its labels.
        """
        raise _no_model()

    def learned(self) -> FloatArray:
        """Return what the rule of the prior's method makes of all examples of this session.

        Shape ``(d,)``, or ``(P, d)`` of a rule that makes P adapters.
        """
        raise _no_model()

    @abstractmethod
    def only(self, span: Span) -> Session:
        """Return a session that has these examples alone: the others cannot be read."""

    @abstractmethod
    def at(self, tolerance: float) -> Session:
        """Return this session with predictions counted at another margin tolerance."""

    def best(self, span: Span) -> Chosen:
        """Return the candidate of the lowest (errors, loss, number) on some examples."""
        counts = self.count(span, span)
        return self.candidate(int(lowest(counts.choosing, counts.losses)[0]))

    def candidate(self, index: int) -> Chosen:
        """Return one candidate by its number."""
        return Chosen(Choice(index=index), self.draw(start=index, count=1)[0])

    def count(self, choosing: Span, certifying: Span) -> Counts:
        """Count the errors of all M candidates on two spans, one episode.

        Only a recipe that pays for all that it compares there may look at those on the
        certifying examples.
        """
        parts = []
        for first in range(0, self.candidates, self.chunk):
            count = min(self.chunk, self.candidates - first)
            drawn = self.draw(start=first, count=count)
            wrong, losses = self.score(drawn, Span(0, self.n))
            parts.append(
                (
                    _sums(wrong, choosing),
                    _sums(wrong, certifying),
                    _sums(losses, choosing),
                    _sums(losses, certifying),
                )
            )
        chosen, certified, chosen_losses, certified_losses = (
            np.concatenate(columns)[None] for columns in zip(*parts, strict=True)
        )
        return Counts(
            choosing=chosen,
            certifying=certified,
            losses=chosen_losses,
            certifying_losses=certified_losses,
            chosen_on=choosing.size,
            certified_on=certifying.size,
            numbers=None if self.number == 1 else np.array([self.number]),
        )


class TableSession(Session):
    """A session over predictions that are known: a candidate's vector is its number, alone.

    A recipe that computes with vectors cannot choose here.

    Parameters
    ----------
    table : ErrorTable
        Its first `candidates` rows and first `n` columns are used.
    candidates : int
        M.
    n : int
        Number of examples.
    number : float
        As in `Session` (default: 1).

    Raises
    ------
    CertificateError
        If the table is too small.
    """

    def __init__(
        self, table: ErrorTable, *, candidates: int, n: int, number: float = 1.0
    ) -> None:
        if len(table.wrong) < candidates:
            raise CertificateError(
                f"the recipe has {candidates} candidates, and the table only {len(table.wrong)}"
            )
        self.n, self.candidates, self.chunk = n, candidates, candidates
        self.number = number
        self._wrong, self._losses = table.wrong[:, :n], table.losses[:, :n]

    def draw(self, *, start: int, count: int) -> FloatArray:
        """Return the candidates' numbers, shape ``(count, 1)``."""
        return np.arange(start, start + count, dtype=np.float64)[:, None]

    def center(self) -> FloatArray:
        """Return the first candidate, which is the center in a table that has one."""
        return self.draw(start=0, count=1).reshape(-1)

    def score(self, vectors: FloatArray, span: Span) -> tuple[BoolArray, FloatArray]:
        """Look candidates up."""
        rows = self.rows_of(vectors)
        return self._wrong[rows, span.as_slice()], self._losses[rows, span.as_slice()]

    def rows_of(self, vectors: FloatArray) -> npt.NDArray[np.int64]:
        """Return the rows of candidates; `CertificateError` for what is no candidate."""
        rows = vectors[:, 0].astype(np.int64)
        if vectors.shape[1] != 1 or not np.isin(rows, np.arange(self.candidates)).all():
            raise _no_table()
        if not np.array_equal(rows, vectors[:, 0]):
            raise _no_table()
        return rows

    def posterior_means(
        self, *, candidates: int, chains: int, steps: int, count: int = 1
    ) -> FloatArray:
        """Refuse: a table has no adapters to refine."""
        raise _no_table()

    def at(self, tolerance: float) -> Self:
        """Refuse: what a table counts as an error is settled."""
        raise _no_table()

    def only(self, span: Span) -> Self:
        """Return a session over some columns."""
        columns = span.as_slice()
        table = ErrorTable(
            wrong=self._wrong[:, columns],
            losses=self._losses[:, columns],
            test_risk=np.full(len(self._wrong), np.nan),
        )
        return type(self)(table, candidates=self.candidates, n=span.size, number=self.number)


def refined_counts(refined: Refined, chosen_on: int) -> Counts:
    """Return the counts of what was made from the choosing examples, one episode.

    How well it does on those says nothing about it, so it counts as 0 for every one.
    """
    certifying = refined.wrong.sum(axis=1)[None]
    return Counts(
        choosing=np.zeros_like(certifying),
        certifying=certifying,
        losses=np.zeros(certifying.shape),
        certifying_losses=None if refined.losses is None else refined.losses.sum(axis=1)[None],
        chosen_on=chosen_on,
        certified_on=refined.wrong.shape[1],
    )


def _sums(table: npt.NDArray[Any], span: Span) -> npt.NDArray[Any]:
    """Return each row's sum over a span, shape ``(rows,)``."""
    total: npt.NDArray[Any] = table[:, span.as_slice()].sum(axis=1)
    return total


def _no_model() -> CertificateError:
    return CertificateError("this session has no model that an adapter could be trained on")


def _no_table() -> CertificateError:
    return CertificateError(
        "this recipe computes with adapters, which a table of predictions does not have; "
        "replay it with the prior and a model (`fedcert.planning.ClientReplay`)"
    )
