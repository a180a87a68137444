"""The replication test: whether samples lie nearer to the pool than fresh adapters do.

The medians of the nearest-pool audit say by how much; this says whether chance explains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["ReplicationTest", "replication_test"]


@dataclass(frozen=True)
class ReplicationTest:
    """A one-sided Mann-Whitney test.

    Attributes
    ----------
    z : float
        Z_U of the data-copying test (Meehan et al., arXiv 2004.05675): the U statistic in
        standard deviations from its mean under equality. Far below zero means copying.
    p_value : float
        Probability of a U this small if samples keep the distance of fresh adapters. With
        h held-out adapters and s samples it cannot be below 1 / C(h + s, h).
    """

    z: float
    p_value: float


def replication_test(samples: Sequence[float], held_out: Sequence[float]) -> ReplicationTest:
    """Test whether samples come nearer to the pool than adapters that the fit never saw.

    Samples are as many as one likes, so even a harmless difference becomes significant: read
    the p-value together with the ratio of medians.

    Parameters
    ----------
    samples, held_out : sequence of float
        Distances to the nearest pool adapter.
    """
    from scipy.stats import mannwhitneyu

    first, second = len(samples), len(held_out)
    found = mannwhitneyu(samples, held_out, alternative="less")
    deviation = (first * second * (first + second + 1) / 12) ** 0.5
    return ReplicationTest(
        float((found.statistic - first * second / 2) / deviation), float(found.pvalue)
    )
