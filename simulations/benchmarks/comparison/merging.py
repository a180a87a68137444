"""Merging: a weighted sum of other clients' adapters, with weights learned here.

Kim, Gouk, Kim and Hospedales, "Model Merging is Secretly Certifiable: Non-Vacuous
Generalisation Bounds for Low-Shot Learning" (arXiv 2505.15798): only K weights are learned,
so a PAC-Bayes bound over the weights does not see the size of the model. Here the posterior
is a Gaussian around the learned weights, the prior one of equal width around the plain
average, and the loss with its squared distance is what the bound asks to be small. A half
split of the same merging, which certifies one adapter instead of a random one, is beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar, Self

import numpy as np
import torch

from fedcert.adapters.finetune import FinetuneSettings, descend
from fedcert.arrays import FloatArray
from fedcert.certificates import bounded_loss_upper_bound
from fedcert.certificates.kl_bounds import pac_bayes_kl
from fedcert.data.examples import Examples
from fedcert.methods.traffic import Traffic
from fedcert.randomness import keyed_generator
from fedcert.simulations.benchmarks.comparison.method import (
    Method,
    Personalized,
    SplitMethod,
    one_label,
)
from fedcert.simulations.benchmarks.comparison.upstream import Upstream

__all__ = ["Merging", "MergingSplit"]

_STEPS, _RATE = 100, 0.05
# The share of delta that pays for estimating the posterior's error on the n examples.
_MONTE_CARLO = 0.1
# Draws in a trial: their uncertainty is wider, and alike for all variants.
_TRIAL_DRAWS = 200


@dataclass(frozen=True, kw_only=True)
class Merging(Method):
    """Certifies a merge with weights drawn afresh for each prediction, by PAC-Bayes-kl.

    Parameters
    ----------
    parts : int (default: 16)
        K, how many of the pool's first adapters are merged.
    width : float (default: 0.1)
        Standard deviation of each weight, of prior and posterior.
    draws : int (default: 1000)
        Draws that estimate the posterior's errors; their own uncertainty is paid for.
    """

    name: ClassVar[str] = "merging (PAC-Bayes)"
    parts: int = 16
    width: float = 0.1
    draws: int = 1000

    @classmethod
    def variants(cls, upstream: Upstream) -> Sequence[Self]:
        """Try few and many parts, each with three widths, narrower for many."""
        return [
            cls(upstream=upstream, parts=parts, width=spread / parts**0.5)
            for parts, spread in product(_parts(upstream, 16, 64), (0.3, 0.6, 1.0))
        ]

    def trial(self, examples: Examples, n: int) -> float:
        """Try the first n with fewer draws: learning from other parts would cost too much."""
        cheaper = replace(self, draws=min(self.draws, _TRIAL_DRAWS))
        return cheaper.personalize(examples.take(slice(0, n))).certificate

    def personalize(self, examples: Examples) -> Personalized:
        """Learn the posterior's center on all n examples, and bound its mean risk there."""
        n, delta = len(examples), self.upstream.delta
        offset = np.zeros(self.parts)
        if not one_label(examples):
            # KL(Q, P) / n: what the bound charges for, as a weight decay.
            decay = 1 / (self.width**2 * n)
            offset = merged_offset(
                self.upstream, examples, self.parts, decay=decay, width=self.width
            )
        divergence = float((offset**2).sum()) / (2 * self.width**2)
        adapters = self._drawn(offset)
        errors = self.score(adapters, examples).wrong.mean(axis=1)
        # Draws are independent given the examples, so their mean bounds the posterior's.
        mean = bounded_loss_upper_bound(errors, _MONTE_CARLO * delta)
        bound = pac_bayes_kl(
            np.array([mean]), np.array([divergence]), n, (1 - _MONTE_CARLO) * delta
        )
        return Personalized(adapters=adapters, certificate=float(bound[0]))

    def traffic(self) -> Traffic:
        """Count an upload of each part, and all parts for a new client."""
        return _traffic(self.upstream, self.parts)

    def _drawn(self, offset: FloatArray) -> FloatArray:
        generator = keyed_generator("merging draws", self.upstream.seed)
        noise = generator.standard_normal((self.draws, self.parts))
        weights = 1 / self.parts + offset + self.width * noise
        return weights @ self.upstream.pool[: self.parts]


@dataclass(frozen=True, kw_only=True)
class MergingSplit(SplitMethod):
    """Certifies one merge, learned on the choosing examples, on the others.

    Parameters
    ----------
    parts : int (default: 16)
        K, how many of the pool's first adapters are merged.
    weight_decay : float (default: 0.01)
        Factor of the squared distance from the plain average in the loss (times one half).
    """

    name: ClassVar[str] = "merging (split)"
    parts: int = 16
    weight_decay: float = 0.01

    @classmethod
    def variants(cls, upstream: Upstream) -> Sequence[Self]:
        """Try few and many parts, two weight decays and two fractions."""
        return [
            cls(
                upstream=upstream,
                parts=parts,
                weight_decay=decay,
                choose_fraction=fraction,
            )
            for parts, decay, fraction in product(
                _parts(upstream, 32, 128), (0.1, 1.0), (0.5, 0.25)
            )
        ]

    def learn(self, examples: Examples) -> FloatArray:
        """Learn the weights; from one label alone, keep the plain average."""
        parts = self.upstream.pool[: self.parts]
        if one_label(examples):
            return np.asarray(parts.mean(axis=0))
        offset = merged_offset(self.upstream, examples, self.parts, decay=self.weight_decay)
        return (1 / self.parts + offset) @ parts

    def traffic(self) -> Traffic:
        """Count an upload of each part, and all parts for a new client."""
        return _traffic(self.upstream, self.parts)


def _traffic(upstream: Upstream, parts: int) -> Traffic:
    return Traffic(upstream.adapter_bytes, 0, upstream.adapter_bytes * parts)


def _parts(upstream: Upstream, *counts: int) -> list[int]:
    """Return how many adapters to merge, no more than there are."""
    return sorted({min(count, len(upstream.pool)) for count in counts})


def merged_offset(
    upstream: Upstream, examples: Examples, parts: int, *, decay: float, width: float = 0.0
) -> FloatArray:
    """Learn the weights of a merge, and return how far each is from 1/K, shape ``(K,)``.

    Parameters
    ----------
    upstream : Upstream
        Holds the pool and the base model.
    examples : Examples
        The training examples.
    parts : int
        K, how many adapters are merged.
    decay : float
        Weight decay of the offsets.
    width : float (default: 0)
        Standard deviation of the weights in training: each step draws them once.

    Returns
    -------
    numpy.ndarray
        Float64, shape ``(K,)``.
    """
    basis = torch.from_numpy(upstream.pool[:parts].astype(np.float32))
    offset = torch.zeros(1, parts, requires_grad=True)
    generator = keyed_generator("merging noise", upstream.seed)

    def vector() -> torch.Tensor:
        noise = generator.standard_normal((1, parts)).astype(np.float32)
        return (1 / parts + offset + width * torch.from_numpy(noise)) @ basis

    settings = FinetuneSettings(steps=_STEPS, learning_rate=_RATE, weight_decay=decay)
    settings = replace(settings, batch_size=max(settings.batch_size, len(examples)))
    descend(
        upstream.model, examples, [offset], vector,
        seed=upstream.seed, settings=settings,
    )  # fmt: skip
    return offset.detach()[0].numpy().astype(np.float64)
