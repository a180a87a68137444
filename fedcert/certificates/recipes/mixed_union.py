"""The union recipe with constant predictors among its candidates, at a share of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from fedcert.certificates.bounds import WEIGHT_DENOMINATOR, budget_of
from fedcert.certificates.recipes.base import (
    Choice,
    LedgerEntry,
    register,
    require_integer,
    require_number,
)
from fedcert.certificates.recipes.weighted_union import WeightedUnionRecipe
from fedcert.errors import CertificateError

__all__ = ["MixedUnionRecipe"]


@register
@dataclass(frozen=True, kw_only=True)
class MixedUnionRecipe(WeightedUnionRecipe):
    """Choose among K constant predictors and M - K draws, on the n examples that certify.

    Candidate j < K predicts label j whatever the input; the others are draws of the prior.
    The constants have `share` of delta, in equal parts, and the draws have the rest: the
    Occam's razor bound of Langford (JMLR 6, 2005). Where a client's labels are mostly a
    matter of how often each occurs, a constant pays for K candidates and not for M; where
    they are not, the draws pay little more than without constants.

    Parameters
    ----------
    constants : int
        K, the number of labels; more than 1 and less than M.
    share : float
        The constants' share of delta, between 0 and 1 (default: 0.5).
    """

    kind: ClassVar[str] = "mixed_union"

    constants: int
    share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("constants", self.constants, 2, self.candidates - 1)
        require_number("share", self.share)
        if not 0 < self.share < 1:
            raise CertificateError(f"share must lie between 0 and 1, not {self.share}")

    @property
    def constant_predictors(self) -> int:
        """K."""
        return self.constants

    def weight(self, choice: Choice | None = None) -> int:
        """Return share/K for a constant and (1 - share)/(M - K) for a draw, rounded down."""
        index = self.index_of(choice)
        # Exact: a power of two only moves the point.
        mass = int(self.share * WEIGHT_DENOMINATOR)
        if index < self.constants:
            return mass // self.constants
        return (WEIGHT_DENOMINATOR - mass) // (self.candidates - self.constants)

    def budgets(self) -> npt.NDArray[np.float64]:
        """Return each candidate's share of delta, shape ``(M,)``."""
        constant, draw = (
            budget_of(self.delta, self.weight(Choice(index=index)))
            for index in (0, self.constants)
        )
        return np.where(np.arange(self.candidates) < self.constants, constant, draw)

    def lowest_bound(self, n: int) -> float:
        """Return the bound at zero errors of whichever candidates weigh more."""
        return min(self.bound(0, n, self.luckiest(index)) for index in (0, self.constants))

    def ledger(self, n: int) -> tuple[LedgerEntry, ...]:
        """Return two entries: what the constants and what the draws take."""
        draws = self.candidates - self.constants
        constant = self.delta * self.share
        return (
            LedgerEntry(
                f"bound the {self.constants} constant predictors at once on {n} examples, an "
                f"equal share for each",
                constant,
            ),
            LedgerEntry(
                f"bound all {draws} draws at once on the same {n} examples, an equal share "
                f"for each",
                self.delta - constant,
            ),
        )

    def statement(self, n: int) -> str:
        """Say that the same examples chose and certified, and how delta was shared."""
        return (
            f"All {n} examples chose the adapter among {self.candidates} candidates, of which "
            f"{self.constants} always predict one label and the others are drawn, and the "
            f"same {n} certify it; the {self.constants} constants share {float(self.share):g} "
            f"of delta equally, the draws the rest, by {self._bound_name}."
        )
