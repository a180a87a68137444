"""Refining candidates: posterior means of a prior given some labeled examples.

A search can only return what it drew. The posterior of the same prior given the choosing
examples says more: its mean uses all candidates that fit, each as much as it fits. Every
prior here is a map of standard normal noise, so the posterior in noise space is a normal
prior times a likelihood, which elliptical slice sampling (Murray, Adams and MacKay, AISTATS
2010) draws from without gradients and without a step size, whatever the map. Chains run
side by side as one batch of candidates.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fedcert.arrays import FloatArray
from fedcert.data.examples import Examples
from fedcert.priors.base import Prior
from fedcert.randomness import candidate_noise, keyed_generator
from fedcert.search.scores import Scorer

__all__ = ["posterior_means"]

_CHUNK = 1024
# The first half of a chain forgets where it started.
_BURN_IN = 0.5


def posterior_means(
    prior: Prior,
    scorer: Scorer,
    examples: Examples,
    *,
    seed: str,
    candidates: int,
    chains: int,
    steps: int,
    count: int = 1,
    losses: FloatArray | None = None,
    on_scored: Callable[[int], None] = lambda _count: None,
) -> FloatArray:
    """Return mean adapters of the posterior given `examples`.

    The likelihood is the product of the predicted probabilities of the labels. Chains start
    at candidates of the seed, drawn with probability proportional to their likelihoods.

    Parameters
    ----------
    prior : Prior
        What candidates are drawn from.
    scorer : Scorer
        Gives their losses.
    examples : Examples
        The choosing examples; none that certifies may be among them.
    seed : str
        256 bits in hexadecimal; with the examples it decides the result.
    candidates : int
        Candidates among which the chains find their starts.
    chains : int
        Chains side by side.
    steps : int
        Proposals of each chain; its states in the second half are averaged.
    count : int (default: 1)
        How many means, each over its own share of the chains.
    losses : numpy.ndarray, optional
        The candidates' losses on the examples, shape ``(candidates, n)``, if they are known.
    on_scored : callable
        Called with the number of candidates that were scored since the last call.

    Returns
    -------
    numpy.ndarray
        Float64, shape ``(count, d)``.
    """
    generator = keyed_generator("posterior mean", seed)
    posterior = _Posterior(prior, scorer, examples)
    known = (
        _likelihoods(posterior, seed, candidates, on_scored=on_scored)
        if losses is None
        else -losses.sum(axis=1)
    )
    starts, likelihoods = _starts(known, posterior, seed, chains, generator)
    sampler = _SliceSampler(posterior, starts, likelihoods, generator)
    total, kept = np.zeros((chains, prior.dimension)), 0
    for step in range(steps):
        sampler.advance()
        on_scored(chains)
        if step >= _BURN_IN * steps:
            total += sampler.adapters
            kept += 1
    return np.stack([total[group::count].mean(axis=0) / kept for group in range(count)])


class _Posterior:
    """Log likelihoods of noise."""

    def __init__(self, prior: Prior, scorer: Scorer, examples: Examples) -> None:
        self.prior, self._scorer, self._examples = prior, scorer, examples

    def evaluate(self, noise: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return adapters ``(count, d)`` and their log likelihoods ``(count,)``."""
        adapters = self.prior.transform(noise)
        losses = self._scorer.score(adapters, self._examples).losses
        return adapters, -losses.sum(axis=1)


def _likelihoods(
    posterior: _Posterior,
    seed: str,
    candidates: int,
    *,
    on_scored: Callable[[int], None],
) -> FloatArray:
    """Return the log likelihoods of the candidates."""
    found = []
    for first in range(0, candidates, _CHUNK):
        count = min(_CHUNK, candidates - first)
        noise = candidate_noise(seed, first, count, posterior.prior.noise_width)
        found.append(posterior.evaluate(noise)[1])
        on_scored(count)
    return np.concatenate(found)


def _starts(
    likelihoods: FloatArray,
    posterior: _Posterior,
    seed: str,
    chains: int,
    generator: np.random.Generator,
) -> tuple[FloatArray, FloatArray]:
    """Draw the chains' first states among the candidates, by likelihood."""
    best = likelihoods.max()
    # Candidates that fail to evaluate have no likelihood; where all do, any will serve.
    weights = np.exp(likelihoods - best) if np.isfinite(best) else np.ones(len(likelihoods))
    rows = generator.choice(len(likelihoods), size=chains, p=weights / weights.sum())
    width = posterior.prior.noise_width
    noise = np.concatenate([candidate_noise(seed, int(row), 1, width) for row in rows])
    return noise, likelihoods[rows]


class _SliceSampler:
    """Elliptical slice sampling of several chains, one proposal of each at a time."""

    def __init__(
        self,
        posterior: _Posterior,
        states: FloatArray,
        likelihoods: FloatArray,
        generator: np.random.Generator,
    ) -> None:
        self._posterior, self._generator = posterior, generator
        self._states, self._likelihoods = states.copy(), likelihoods.copy()
        self.adapters = posterior.prior.transform(states)
        count, width = states.shape
        self._directions = np.empty((count, width))
        self._levels, self._angles = np.empty(count), np.empty(count)
        self._low, self._high = np.empty(count), np.empty(count)
        self._new_ellipses(np.ones(count, dtype=np.bool_))

    def advance(self) -> None:
        """Propose one new state per chain: move there, or narrow the chain's bracket."""
        angle = self._angles[:, None]
        proposed = self._states * np.cos(angle) + self._directions * np.sin(angle)
        adapters, likelihoods = self._posterior.evaluate(proposed)
        moved = likelihoods > self._levels
        self._states[moved], self.adapters[moved] = proposed[moved], adapters[moved]
        self._likelihoods[moved] = likelihoods[moved]
        self._narrow(~moved)
        self._new_ellipses(moved)

    def _new_ellipses(self, rows: npt.NDArray[np.bool_]) -> None:
        """Give some chains a new level, ellipse and bracket."""
        count, draw = int(rows.sum()), self._generator
        self._directions[rows] = draw.standard_normal((count, self._states.shape[1]))
        self._levels[rows] = self._likelihoods[rows] + np.log(1 - draw.random(count))
        self._angles[rows] = 2 * np.pi * draw.random(count)
        self._low[rows], self._high[rows] = self._angles[rows] - 2 * np.pi, self._angles[rows]

    def _narrow(self, rows: npt.NDArray[np.bool_]) -> None:
        """Shrink the bracket of some chains to the side of the current state."""
        below = rows & (self._angles < 0)
        above = rows & (self._angles >= 0)
        self._low[below], self._high[above] = self._angles[below], self._angles[above]
        width = self._high[rows] - self._low[rows]
        self._angles[rows] = self._low[rows] + width * self._generator.random(int(rows.sum()))
