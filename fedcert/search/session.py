"""The session over a prior and a model, through which recipes choose for real clients."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fedcert.arrays import FloatArray
from fedcert.certificates import Chosen, Recipe, Session, Span
from fedcert.data.examples import Examples
from fedcert.priors.base import Prior
from fedcert.search.drawing import NO_CONSTANTS, fixed_candidates, led_by
from fedcert.search.learning import (
    finetuned,
    learned,
    local_head,
    posterior_mode,
    tuned_head,
)
from fedcert.search.refinement import posterior_means
from fedcert.search.scores import Scorer
from fedcert.search.search import search

__all__ = ["CHUNK", "SupportSession"]

CHUNK = 1024
"""Candidates drawn at a time."""


class SupportSession(Session):
    """A support set, the candidates of a seed, and a model that scores them.

    Parameters
    ----------
    recipe : Recipe
        Says how many candidates there are, and how many of them are constants.
    prior : Prior
        What the others are drawn from.
    scorer : Scorer
        Counts errors.
    ordered : Examples
        The support set in the order in which the seed spends it.
    seed : str
        Seed of the candidates, 256 bits in hexadecimal.
    constants : numpy.ndarray, optional
        Adapters that predict one label each, for recipes that have such candidates.
    chunk : int (default: 1024)
        Candidates drawn at a time; the choice is the same.
    coarse_losses : callable, optional
        Returns the losses of the coarse sampler's first M candidates on these examples, shape
        ``(M, n)``, where somebody has them: sessions over parts of the same examples share
        them.
    unlabeled : Examples, optional
        Inputs without labels, none of them a certifying one's, for the rule of the prior's
        method.
    on_scored : callable
        Called with the number of candidates that were scored since the last call.

    Raises
    ------
    CertificateError
        If the recipe has constants, and the model not as many.
    """

    def __init__(
        self,
        recipe: Recipe,
        prior: Prior,
        scorer: Scorer,
        ordered: Examples,
        *,
        seed: str,
        constants: FloatArray = NO_CONSTANTS,
        chunk: int = CHUNK,
        coarse_losses: Callable[[], FloatArray] | None = None,
        unlabeled: Examples | None = None,
        on_scored: Callable[[int], None] = lambda _count: None,
    ) -> None:
        self._recipe, self._prior, self._scorer = recipe, prior, scorer
        self._sampler = prior.on(scorer.device)
        self._ordered, self._seed = ordered, seed
        self._unlabeled = unlabeled
        self._constants = constants
        self._fixed = fixed_candidates(recipe, prior, constants)
        self._on_scored, self._coarse_losses = on_scored, coarse_losses
        self.n, self.candidates, self.chunk = len(ordered), recipe.candidates, chunk
        self.number = recipe.number_of(seed)

    def draw(self, *, start: int, count: int) -> FloatArray:
        """Return candidates, those that are fixed first."""
        # One candidate alone is what may be signed: it is the same whatever the device.
        prior = self._prior if count == 1 else self._sampler
        drawn = prior.sample(self._seed, start=start, count=count)
        return led_by(self._fixed, drawn, start=start)

    def center(self) -> FloatArray:
        """Return the prior's center."""
        return self._prior.center()

    def score(
        self, vectors: FloatArray, span: Span
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
        """Score adapters with the model."""
        scores = self._scorer.score(vectors, self._taken(span))
        self._on_scored(len(vectors))
        return scores.wrong, scores.losses

    def posterior_means(
        self, *, candidates: int, chains: int, steps: int, count: int = 1
    ) -> FloatArray:
        """Sample the posterior given all examples of this session.

        Chains walk over candidates of the coarse sampler: a mean over hundreds of them hardly
        depends on its last digits, and no finalist has to be a candidate of the seed.
        """
        known = self._coarse_losses
        return posterior_means(
            self._sampler.coarse(),
            self._scorer,
            self._ordered,
            seed=self._seed,
            candidates=candidates,
            chains=chains,
            steps=steps,
            count=count,
            losses=None if known is None else known()[:candidates],
            on_scored=self._on_scored,
        )

    def posterior_mode(self, *, steps: int) -> FloatArray:
        """Train along the prior's axes on all examples of this session."""
        return posterior_mode(self._scorer, self._ordered, self._prior, steps=steps)

    def finetuned(self, *, steps: int, learning_rate: float, pull: float) -> FloatArray:
        """Train an adapter from the prior's center on all examples of this session."""
        return finetuned(
            self._scorer,
            self._ordered,
            self._prior.center(),
            steps=steps,
            learning_rate=learning_rate,
            pull=pull,
        )

    def local_head(self) -> FloatArray:
        """Train a head on the frozen base model on all examples of this session."""
        return local_head(self._scorer, self._ordered)

    def tuned_head(self) -> FloatArray:
        """Train the head of the prior's center on all examples of this session."""
        return tuned_head(self._scorer, self._ordered, self._prior.center())

    def learned(self) -> FloatArray:
        """Follow the rule of the prior's method on all examples of this session."""
        return learned(self._scorer, self._ordered, self._prior, self._unlabeled)

    def only(self, span: Span) -> SupportSession:
        """Return a session over some of the examples."""
        known = self._coarse_losses
        part = None if known is None else lambda: known()[:, span.as_slice()]
        return self._with(self._scorer, self._taken(span), part)

    def at(self, tolerance: float) -> SupportSession:
        """Return a session that counts margins up to `tolerance` as errors."""
        scorer = copy.copy(self._scorer)
        scorer.margin_tolerance = tolerance
        return self._with(scorer, self._ordered, self._coarse_losses)

    def _with(
        self,
        scorer: Scorer,
        ordered: Examples,
        coarse_losses: Callable[[], FloatArray] | None,
    ) -> SupportSession:
        return SupportSession(
            self._recipe,
            self._prior,
            scorer,
            ordered,
            seed=self._seed,
            constants=self._constants,
            chunk=self.chunk,
            coarse_losses=coarse_losses,
            unlabeled=self._unlabeled,
            on_scored=self._on_scored,
        )

    def best(self, span: Span) -> Chosen:
        """Race the candidates: who cannot win any more is dropped early."""
        winner = search(
            self._sampler,
            self._scorer,
            self._taken(span),
            seed=self._seed,
            candidates=self.candidates,
            constants=self._fixed,
            chunk=self.chunk,
            on_scored=self._on_scored,
        )
        # Drawn alone: in a chunk its last bits would depend on how many were drawn beside it.
        return self.candidate(winner.index)

    def _taken(self, span: Span) -> Examples:
        whole = span == Span(0, self.n)
        return self._ordered if whole else self._ordered.take(span.as_slice())
