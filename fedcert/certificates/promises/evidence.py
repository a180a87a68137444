"""What a promise may look at: what an adapter, and others, answer on the examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from fedcert.arrays import FloatArray
from fedcert.errors import CertificateError

__all__ = ["Answers", "Early", "Evidence", "Rival"]

IntArray = npt.NDArray[np.int64]

Rival = Literal["default", "base"]
"""Whom an adapter is compared with: the bundle's default adapter, the center of its prior, or
the base model without any adapter."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What one model says of n examples.

    Parameters
    ----------
    logits : numpy.ndarray
        Shape (n, K), float64.
    labels : numpy.ndarray
        The true labels, int64, shape (n,); negative for an example that cannot be read, or
        whose label is none of the task's.
    """

    logits: FloatArray
    labels: IntArray

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.labels)

    @cached_property
    def margins(self) -> FloatArray:
        """The highest logit minus the second, shape (n,); minus infinity where one failed."""
        top = np.sort(self.logits, axis=1)[:, -2:]
        finite = np.isfinite(self.logits).all(axis=1)
        with np.errstate(invalid="ignore"):
            return np.where(finite, top[:, 1] - top[:, 0], -np.inf)

    @cached_property
    def leads(self) -> FloatArray:
        """The true label's logit minus the largest other, shape (n,).

        Minus infinity where the example failed to evaluate, or has no label of the task.
        """
        return self.lead_over(1)

    def lead_over(self, place: int) -> FloatArray:
        """Return the true label's logit minus the `place`-th highest of the other labels'.

        Parameters
        ----------
        place : int
            From 1 to K - 1; 1 is the largest of the others.

        Returns
        -------
        numpy.ndarray
            Shape (n,); minus infinity as in `leads`.
        """
        rows = np.arange(len(self))
        own = self.logits[rows, self.labels]
        others = self.logits.copy()
        others[rows, self.labels] = -np.inf
        rival = np.sort(others, axis=1)[:, -place]
        fair = np.isfinite(self.logits).all(axis=1) & (self.labels >= 0)
        with np.errstate(invalid="ignore"):
            return np.where(fair, own - rival, -np.inf)


@dataclass(frozen=True, eq=False)
class Early:
    """What the adapter of an early operating point says of the same examples.

    Parameters
    ----------
    adapter : str
        Digest of its tensors.
    weight : int
        Its weight over 2**53, of which the certifying examples had a part in choosing it.
    choosing : Answers or None
        On the examples that do not certify; None if all do.
    certifying : Answers
        On the m certifying examples.
    """

    adapter: str
    weight: int
    choosing: Answers | None
    certifying: Answers


class Evidence(ABC):
    """The examples of one support set, as the certified adapter sees them.

    Parameters
    ----------
    tolerance : float
        The recipe's ``margin_tolerance``: what lies nearer to a threshold may fall on either
        side of it on another machine, and counts against the promise.
    """

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance

    @property
    @abstractmethod
    def choosing(self) -> Answers | None:
        """The adapter's answers on the examples that do not certify it; None if all do."""

    @property
    @abstractmethod
    def certifying(self) -> Answers:
        """The adapter's answers on the m certifying examples."""

    @property
    def reference(self) -> Answers:
        """The adapter's answers on the bundle's reference sample.

        Raises
        ------
        CertificateError
            If the bundle has none, as by default.
        """
        raise CertificateError("there is no reference sample to count errors on")

    def early(self, point: str) -> Early | None:
        """Return what an early operating point's adapter says; None if there is none."""
        return None

    @abstractmethod
    def of(self, rival: Rival) -> Answers:
        """Return another model's answers on the same certifying examples."""
