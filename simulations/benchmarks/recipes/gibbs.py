"""The Gibbs recipe and the vote: PAC-Bayes-kl for a whole posterior over the candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NoReturn

import numpy as np
import numpy.typing as npt
from scipy.special import rel_entr

from fedcert.certificates.counts import Counts, ErrorTable, Selection
from fedcert.certificates.kl_bounds import pac_bayes_kl
from fedcert.certificates.recipes.base import (
    Choice,
    LedgerEntry,
    Recipe,
    Span,
    Subject,
    register,
    require_integer,
    require_number,
)
from fedcert.errors import CertificateError

__all__ = ["GibbsRecipe", "VoteRecipe"]


@register
@dataclass(frozen=True, kw_only=True)
class GibbsRecipe(Recipe):
    """Certify a predictor that draws a candidate afresh for every prediction.

    Candidate j is drawn with probability proportional to exp(-b k_j), with k_j its errors
    on all n examples, which also certify: PAC-Bayes-kl (`pac_bayes_kl`) with the uniform
    prior. That bound holds for all posteriors at once, so b is chosen from a grid after
    the counts are seen, at no price.

    Parameters
    ----------
    beta : float
        The largest b, above 0 (default: 8.0).
    grid : int
        Number of values of b: beta, beta/2, beta/4, ... (default: 10).
    """

    kind: ClassVar[str] = "gibbs"
    certifies: ClassVar[Subject] = "randomized predictor"
    factor: ClassVar[int] = 1

    beta: float = 8.0
    grid: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("beta", self.beta)
        if self.beta <= 0:
            raise CertificateError(f"beta must be above 0, not {self.beta}")
        require_integer("grid", self.grid, 1, 100)

    def choosing(self, n: int) -> Span:
        """Return all n examples."""
        return Span(0, n)

    def certifying(self, n: int) -> Span:
        """Return all n examples."""
        return Span(0, n)

    def weight(self, choice: Choice | None = None) -> NoReturn:
        """Refuse: there is no single hypothesis that could have a weight."""
        raise CertificateError(
            f"a recipe of kind {self.kind!r} certifies a {self.certifies}, no single adapter "
            f"with a weight; replay it instead"
        )

    def lowest_bound(self, n: int) -> float:
        """Return the bound if no candidate makes an error."""
        zero = np.zeros(1)
        return min(1.0, self.factor * float(pac_bayes_kl(zero, zero, n, self.delta)[0]))

    def select(self, counts: Counts) -> Selection:
        """Certify in every episode the posterior of the grid with the lowest bound."""
        bounds = np.full(len(counts.certifying), np.inf)
        posterior = np.zeros(counts.certifying.shape)
        for step in range(self.grid):
            trial, value = self._posterior(counts, self.beta / 2**step)
            better = value < bounds
            bounds[better], posterior[better] = value[better], trial[better]
        return Selection(
            bounds=np.minimum(self.factor * bounds, 1.0),
            errors=(posterior * counts.certifying).sum(axis=1),
            posterior=posterior,
        )

    def ledger(self, n: int) -> tuple[LedgerEntry, ...]:
        """Return one entry: all of delta, for all posteriors at once."""
        purpose = (
            f"bound all posteriors over {self.candidates} candidates at once on the same {n} "
            f"examples"
        )
        return (LedgerEntry(purpose, self.delta),)

    def statement(self, n: int) -> str:
        """Say that the predictor draws a candidate for every prediction."""
        return (
            f"All {n} examples weighted {self.candidates} candidates, and the same {n} "
            f"certify the predictor that draws one of them by its weight afresh for every "
            f"prediction, by PAC-Bayes-kl."
        )

    def _posterior(
        self, counts: Counts, beta: float
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        errors = counts.certifying
        density = np.exp(-beta * (errors - errors.min(axis=1, keepdims=True)))
        posterior = density / density.sum(axis=1, keepdims=True)
        divergence = rel_entr(posterior, 1 / errors.shape[1]).sum(axis=1)
        mean = (posterior * errors).sum(axis=1) / max(counts.certified_on, 1)
        return posterior, pac_bayes_kl(
            np.minimum(mean * (1 + 1e-12), 1.0),
            np.maximum(divergence, 0.0) + 1e-12,
            counts.certified_on,
            self.delta,
        )


@register
@dataclass(frozen=True, kw_only=True)
class VoteRecipe(GibbsRecipe):
    """Certify the weighted majority vote of the candidates, at twice the Gibbs bound.

    Where the vote is wrong, at least half of the weight is; so its risk is at most twice
    that of the randomized predictor (Markov's inequality; Langford and Shawe-Taylor,
    "PAC-Bayes & Margins", NIPS 2002). A label without more than half of the weight counts
    as wrong.
    """

    kind: ClassVar[str] = "vote"
    certifies: ClassVar[Subject] = "majority vote"
    factor: ClassVar[int] = 2

    def risk_of(
        self, selection: Selection, table: ErrorTable, risks: npt.NDArray[np.float64]
    ) -> float:
        """Return the share of test examples on which half of the weight or more is wrong."""
        if table.test_wrong is None:
            return float("nan")
        assert selection.posterior is not None
        wrong = selection.posterior[0] @ table.test_wrong[: self.candidates]
        return float((wrong >= 0.5).mean())

    def statement(self, n: int) -> str:
        """Say that the candidates vote."""
        return (
            f"All {n} examples weighted {self.candidates} candidates, and the same {n} "
            f"certify the label that gets more than half of the weight, by twice the "
            f"PAC-Bayes-kl bound of the predictor that draws one candidate."
        )
