"""Regressions side by side against a minimizer for one."""

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax

from fedcert.search.regression import fitted, losses

FEATURES, LABELS = 7, 3
PENALTIES = (1.0, 1e-2, 1e-4)


def examples(count, *, seed):
    """Return features, labels and offsets ``(1, K, n)`` that some weights separate."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(count, FEATURES))
    labels = (features @ generator.normal(size=(FEATURES, LABELS))).argmax(axis=1)
    offsets = generator.normal(size=(1, LABELS, count))
    return torch.from_numpy(features), torch.from_numpy(labels), torch.from_numpy(offsets)


def minimum(features, labels, offsets, share, penalty):
    """Minimize one objective from its values alone, as it is written in the docstring."""
    features, offsets, share = features.numpy(), offsets.numpy(), share.numpy()

    def value(flat):
        weights = flat.reshape(LABELS, FEATURES)
        logs = log_softmax(offsets + weights @ features.T, axis=0)
        lost = -logs[labels.numpy(), np.arange(len(labels))]
        return share @ lost + penalty / 2 * np.sum(flat**2)

    return minimize(value, np.zeros(LABELS * FEATURES), options={"gtol": 1e-6}).fun, value


def test_each_regression_ends_at_its_own_minimum():
    features, labels, offsets = examples(20, seed=0)
    shares = torch.stack([torch.full((20,), 0.05), (torch.arange(20) < 9) / 9.0]).double()
    penalties = torch.tensor(PENALTIES).double().repeat_interleave(2)
    many = offsets.expand(6, -1, -1)
    weights = fitted(
        features, labels, many, shares=shares.repeat(3, 1), penalties=penalties
    ).numpy()
    for found, share, penalty in zip(
        weights, shares.repeat(3, 1), penalties.tolist(), strict=True
    ):
        lowest, value = minimum(features, labels, offsets[0], share, penalty)
        assert value(found.ravel()) <= lowest + 1e-9


def test_what_counts_for_nothing_teaches_nothing():
    features, labels, offsets = examples(6, seed=1)
    none = torch.zeros(1, 6).double()
    weights = fitted(features, labels, offsets, shares=none, penalties=torch.ones(1).double())
    assert not weights.any()


def test_losses_are_cross_entropies():
    features, labels, offsets = examples(5, seed=2)
    weights = torch.randn(1, LABELS, FEATURES, generator=torch.Generator().manual_seed(0))
    logits = (offsets[0] + weights[0].double() @ features.T).T
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    found = losses(weights.double(), features, labels, offsets)
    assert torch.allclose(found[0], expected)
