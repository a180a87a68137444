"""The posterior split recipe: some examples refine candidates, the others certify them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fedcert.certificates.bounds import uniform_weight
from fedcert.certificates.counts import Counts, Selection, lowest
from fedcert.certificates.recipes.base import (
    Choice,
    LedgerEntry,
    Session,
    register,
    require_integer,
)
from fedcert.certificates.recipes.split import SplitRecipe
from fedcert.errors import CertificateError

__all__ = ["REFINEMENTS", "PosteriorSplitRecipe"]

REFINEMENTS = ("posterior_mean",)
"""Names of the algorithms that may make finalists from the choosing examples."""


@register
@dataclass(frozen=True, kw_only=True)
class PosteriorSplitRecipe(SplitRecipe):
    """Refine candidates on the first n1 examples; certify on the others, at delta/M' each.

    Given the first n1 examples the M' finalists are fixed, whatever made them: a search
    among M draws of the prior, and gradients. The finalist with the fewest errors on the
    other n - n1 examples is certified there, by the Occam's razor bound of Langford (JMLR
    6, 2005) with the weight 1/M'.

    Parameters
    ----------
    finalists : int
        M', from 1 to M (default: 1).
    refinement : str
        The algorithm that makes the finalists, one of `REFINEMENTS` (default:
        ``"posterior_mean"``).
    chains : int
        How many chains it runs side by side, at least M' (default: 32).
    steps : int
        Steps of each chain, 2 or more (default: 60).
    """

    kind: ClassVar[str] = "posterior_split"
    refines: ClassVar[bool] = True

    finalists: int = 1
    refinement: str = "posterior_mean"
    chains: int = 32
    steps: int = 60

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("finalists", self.finalists, 1, self.candidates)
        require_integer("chains", self.chains, self.finalists, 10**6)
        require_integer("steps", self.steps, 2, 10**6)
        if self.refinement not in REFINEMENTS:
            raise CertificateError(
                f"unknown refinement {self.refinement!r}; this version knows "
                f"{', '.join(REFINEMENTS)}"
            )

    @property
    def hypotheses(self) -> int:
        """Number of finalists, M'."""
        return self.finalists

    def refine(self, session: Session) -> npt.NDArray[np.float64]:
        """Return the posterior's means, each over its own share of the chains."""
        return session.posterior_means(
            candidates=self.candidates,
            chains=self.chains,
            steps=self.steps,
            count=self.finalists,
        )

    def refinement_config(self) -> dict[str, Any]:
        """Return all of the recipe that the finalists depend on, besides the examples."""
        return {
            "refinement": self.refinement,
            "candidates": self.candidates,
            "finalists": self.finalists,
            "chains": self.chains,
            "steps": self.steps,
        }

    def weight(self, choice: Choice | None = None) -> int:
        """Return 1/M', rounded down."""
        return uniform_weight(self.finalists)

    def select(self, counts: Counts) -> Selection:
        """Certify the finalist with the fewest errors on the certifying examples."""
        return self._selected(lowest(counts.certifying, counts.certifying_losses), counts)

    def ledger(self, n: int) -> tuple[LedgerEntry, ...]:
        """Return two entries: refining is free, certifying takes all of delta."""
        choosing, certifying = self.choosing(n).size, self.certifying(n).size
        return (
            LedgerEntry(
                f"make {self._finalists} from {self.candidates} candidates on {choosing} "
                f"examples that do not certify",
                0.0,
            ),
            LedgerEntry(
                f"bound {self._finalists} at once on the other {certifying} examples, an "
                f"equal share for each",
                self.delta,
            ),
        )

    def statement(self, n: int) -> str:
        """Say how many examples refined and how many others certify."""
        return (
            f"{self.choosing(n).size} of the {n} examples chose among {self.candidates} "
            f"candidates and refined them into {self._finalists} by "
            f"{self.refinement!r}; the other {self.certifying(n).size} certify the adapter, "
            f"and every finalist is paid for with an equal share of delta, by exact "
            f"inversion of the binomial tail."
        )

    @property
    def _finalists(self) -> str:
        return "1 finalist" if self.finalists == 1 else f"{self.finalists} finalists"
