"""Multinomial logistic regressions on the same features, fitted side by side.

Choosing a penalty on held-out folds takes a fit for each fold and penalty. Each is small, so
that calling a minimizer for one after the other takes longer than the arithmetic does. Here
they are one batch: one product with the features in each step serves all of them. They run in
PyTorch, whose number of threads can be set; NumPy's would wait for each other at this size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["fitted", "losses"]

# No entry of a gradient is larger at the end.
_GRADIENT = 1e-8
_MOST_STEPS = 200
# A step is solved for until its residual is this share of the gradient, or the gradient's
# root times it: far from the end there is little to gain from the last digits.
_RESIDUAL = 0.3
_MOST_SOLVED = 200
# A step has to gain this share of what the slope promises (Armijo).
_GAIN = 1e-4
_HALVINGS = 30
# Values that differ by less are rounded alike.
_ROUNDING = 1e-14


def losses(
    weights: torch.Tensor, features: torch.Tensor, labels: torch.Tensor, offsets: torch.Tensor
) -> torch.Tensor:
    """Return the cross-entropy of each example in each regression.

    Parameters
    ----------
    weights : torch.Tensor
        Shape ``(R, K, h)``.
    features : torch.Tensor
        Shape ``(n, h)``.
    labels : torch.Tensor
        Int64, shape ``(n,)``.
    offsets : torch.Tensor
        What is added to the logits, shape ``(R, K, n)``.

    Returns
    -------
    torch.Tensor
        Shape ``(R, n)``.
    """
    logs = (offsets + weights @ features.T).log_softmax(dim=1)
    return -logs.gather(1, labels.expand(len(logs), 1, -1))[:, 0]


def fitted(
    features: torch.Tensor,
    labels: torch.Tensor,
    offsets: torch.Tensor,
    *,
    shares: torch.Tensor,
    penalties: torch.Tensor,
) -> torch.Tensor:
    """Minimize R weighted cross-entropies, each plus half its penalty times the squared norm.

    Each is strictly convex, so that where it ends does not depend on the way there: Newton's
    steps from zero, solved for by conjugate gradients (Nocedal and Wright, Numerical
    Optimization, algorithm 7.1), without the curvature's matrix.

    Parameters
    ----------
    features : torch.Tensor
        Float64, shape ``(n, h)``; columns that are orthogonal are solved for fastest.
    labels : torch.Tensor
        Int64, shape ``(n,)``.
    offsets : torch.Tensor
        What is added to the logits, shape ``(R, K, n)``.
    shares : torch.Tensor
        The weight of each example in each regression, shape ``(R, n)``.
    penalties : torch.Tensor
        Positive, shape ``(R,)``.

    Returns
    -------
    torch.Tensor
        Weights, shape ``(R, K, h)``.
    """
    found = features.new_zeros(*offsets.shape[:2], features.shape[1])
    rows = torch.arange(len(found))
    for _ in range(_MOST_STEPS):
        some = _Regressions(features, labels, offsets[rows], shares[rows], penalties[rows])
        found[rows], going = some.advanced(found[rows])
        rows = rows[going]
        if not len(rows):
            break
    return found


@dataclass(frozen=True, eq=False)
class _Regressions:
    """The objectives of regressions that have not ended yet."""

    features: torch.Tensor
    labels: torch.Tensor
    offsets: torch.Tensor
    shares: torch.Tensor
    penalties: torch.Tensor

    def advanced(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Go one step from weights that have not ended; say which have not after it."""
        chances = self._logits(weights).softmax(dim=1)
        gradient = self._gradient(weights, chances)
        direction = self._solved(gradient, chances)
        value, promised = self._values(weights), _dot(gradient, direction)
        slack, step = _ROUNDING * (1 + value.abs()), torch.ones_like(value)
        for _ in range(_HALVINGS):
            at = weights + step[:, None, None] * direction
            short = self._values(at) > value + _GAIN * step * promised + slack
            if not bool(short.any()):
                break
            step = torch.where(short, step / 2, step)
        after = self._gradient(at, self._logits(at).softmax(dim=1))
        return at, after.abs().amax(dim=(1, 2)) > _GRADIENT

    def _logits(self, weights: torch.Tensor) -> torch.Tensor:
        return self.offsets + weights @ self.features.T

    def _values(self, weights: torch.Tensor) -> torch.Tensor:
        lost = losses(weights, self.features, self.labels, self.offsets)
        return (self.shares * lost).sum(dim=1) + self.penalties / 2 * _dot(weights, weights)

    def _gradient(self, weights: torch.Tensor, chances: torch.Tensor) -> torch.Tensor:
        wanted = self.labels.expand(len(chances), 1, -1)
        one = chances.new_ones(())
        residuals = chances.scatter_add(1, wanted, -one.expand(wanted.shape))
        slope = (self.shares[:, None] * residuals) @ self.features
        return slope + self.penalties[:, None, None] * weights

    def _solved(self, gradient: torch.Tensor, chances: torch.Tensor) -> torch.Tensor:
        """Return Newton's direction, about: conjugate gradients, the diagonal taken out."""
        counted = self.shares[:, None] * chances  # (R, K, n)
        pull = self.penalties[:, None, None]
        diagonal = (counted * (1 - chances)) @ self.features.square() + pull
        found, residual = torch.zeros_like(gradient), -gradient
        leaned = residual / diagonal
        along, size = leaned, _dot(residual, leaned)
        length = _dot(gradient, gradient).sqrt()
        enough = length * length.sqrt().clamp(max=1.0) * _RESIDUAL
        for _ in range(_MOST_SOLVED):
            moved = along @ self.features.T
            centered = moved - (chances * moved).sum(dim=1, keepdim=True)
            turned = (counted * centered) @ self.features + pull * along
            going = _dot(residual, residual).sqrt() > enough
            if not bool(going.any()):
                break
            pace = torch.where(going, size / _dot(along, turned), 0.0)[:, None, None]
            found, residual = found + pace * along, residual - pace * turned
            leaned = residual / diagonal
            before, size = size, _dot(residual, leaned)
            along = leaned + (size / before).nan_to_num()[:, None, None] * along
        return found


def _dot(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return (one * other).sum(dim=(1, 2))
