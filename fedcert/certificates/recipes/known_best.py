"""The test set limit: the best candidate as if it came for free. A reference only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from fedcert.certificates.bounds import WEIGHT_DENOMINATOR
from fedcert.certificates.counts import Counts, ErrorTable, Refined, Selection
from fedcert.certificates.recipes.base import Choice, LedgerEntry, Subject, register
from fedcert.certificates.recipes.union import UnionRecipe

__all__ = ["KnownBestRecipe"]


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

    def tabulated(
        self, table: ErrorTable, n: int, refined: Refined | None
    ) -> tuple[Counts, npt.NDArray[np.float64]]:
        """Return the one candidate of lowest risk; see `Recipe.tabulated`."""
        counts, risks = super().tabulated(table, n, refined)
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
