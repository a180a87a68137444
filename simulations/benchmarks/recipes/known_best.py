"""The test set limit: the best candidate as if it came for free. A reference only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from fedcert.certificates.bounds import WEIGHT_DENOMINATOR, binomial_upper_bound
from fedcert.certificates.counts import Counts, ErrorTable, Refined, Selection
from fedcert.certificates.recipes.base import Choice, LedgerEntry, Subject, register
from fedcert.certificates.recipes.union import UnionRecipe
from fedcert.errors import CertificateError

__all__ = ["KnownBestRecipe", "limit"]


@register
@dataclass(frozen=True, kw_only=True)
class KnownBestRecipe(UnionRecipe):
    """Certify on all n examples at all of delta the candidate of lowest true risk.

    The bound that no way of choosing from the same candidates can expect to beat. The true
    risk is not known to a client, so a certificate of this kind cannot exist.
    """

    kind: ClassVar[str] = "test_set"
    randomizes: ClassVar[bool] = False
    certifies: ClassVar[Subject] = "reference"

    def weight(self, choice: Choice | None = None) -> int:
        """Return 1: the candidate was fixed without an example."""
        return WEIGHT_DENOMINATOR

    def counts_and_risks(
        self, table: ErrorTable, n: int, refined: Refined | None
    ) -> tuple[Counts, npt.NDArray[np.float64]]:
        """Return the one candidate of lowest risk; see `Recipe.counts_and_risks`."""
        counts, risks = super().counts_and_risks(table, n, refined)
        best = int(risks.argmin())
        alone = slice(best, best + 1)
        return Counts(
            choosing=counts.choosing[:, alone],
            certifying=counts.certifying[:, alone],
            losses=counts.losses[:, alone],
            chosen_on=counts.chosen_on,
            certified_on=counts.certified_on,
        ), risks[alone]

    def reaching(self, counts: Counts, risks: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return the predictor of lowest risk, in every episode."""
        return np.full((len(counts.choosing), 1), risks.argmin())

    def select(self, counts: Counts) -> Selection:
        """Certify the first hypothesis, which came for free."""
        return self._selected(np.zeros(len(counts.certifying), dtype=np.int64), counts)

    def ledger(self, n: int) -> tuple[LedgerEntry, ...]:
        """Return one entry: all of delta for one candidate."""
        return (
            LedgerEntry(f"bound a candidate that came for free on {n} examples", self.delta),
        )

    def statement(self, n: int) -> str:
        """Say that this is a reference."""
        return (
            f"For reference only: the candidate of lowest true risk among {self.candidates}, "
            f"certified on all {n} examples as if it had been known beforehand."
        )


def limit(risks: npt.NDArray[np.floating[Any]], n: int, delta: float) -> float:
    """Return what certificates would be if the best predictor came for free.

    The mean over clients c, and over k ~ Binomial(n, r_c), of the exact binomial bound from
    k errors on n examples at all of delta; the expectation is summed, not sampled.

    Parameters
    ----------
    risks : numpy.ndarray
        The clients' risks r_c, shape (C,), each in [0, 1].
    n : int
        Examples of each client.
    delta : float
        Probability with which each certificate may fail.

    Returns
    -------
    float
        The mean bound, in (0, 1].

    Raises
    ------
    CertificateError
        If there is no client, a risk is out of range, or as in `binomial_upper_bound`.
    """
    values = np.asarray(risks, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not ((values >= 0) & (values <= 1)).all():
        raise CertificateError("risks must be one or more numbers from 0 to 1")
    counts = np.arange(n + 1)
    bounds = np.array([binomial_upper_bound(int(k), n, delta) for k in counts])
    return float((binom.pmf(counts, n, values[:, None]) @ bounds).mean())
