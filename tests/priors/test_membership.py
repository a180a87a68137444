"""Membership attacks find what a prior gives away, and their limits hold."""

from __future__ import annotations

import numpy as np
import pytest

from fedcert.priors import GaussianPrior, JitterPrior, Prior, ResamplingPrior
from fedcert.priors.membership import (
    MembershipAudit,
    attack_scores,
    auc_interval,
    audit_membership,
)
from fedcert.priors.replication import replication_test
from fedcert.randomness import keyed_generator

from .pools import gaussian_pool
from .prior_suite import SEED


def _audit(
    prior: Prior, adapters: np.ndarray, members: int, **options: float
) -> MembershipAudit:
    return audit_membership(
        prior, members=adapters[:members], non_members=adapters[members:], seed=SEED, **options
    )


def _wide(count: int, *, seed: int = 0) -> np.ndarray:
    """Draw adapters with far more coordinates than there are adapters."""
    generator = keyed_generator("wide", seed)
    mixing = keyed_generator("wide mixing").standard_normal((6, 2000))
    noise = generator.standard_normal((count, 2000))
    return 0.3 * generator.standard_normal((count, 6)) @ mixing + noise


def test_a_prior_that_hands_out_the_pool_is_found_out() -> None:
    pool = gaussian_pool(96)
    audit = _audit(ResamplingPrior.fit(pool[:64], seed=0), pool, 64)
    assert audit.worst.advantage == 1.0
    assert not audit.passed
    assert (audit.members, audit.non_members) == (64, 32)


def test_published_centers_are_found_out() -> None:
    pool = gaussian_pool(96)
    audit = _audit(JitterPrior.fit(pool[:64], seed=0), pool, 64)
    assert audit.worst.name == "nearest published point"
    assert audit.worst.advantage == 1.0
    assert not audit.passed


def test_a_gaussian_with_few_coordinates_gives_little_away() -> None:
    pool = gaussian_pool(600)
    audit = _audit(GaussianPrior.fit(pool[:400], seed=0), pool, 400)
    assert audit.worst.upper < 0.3
    assert audit.passed


def test_means_and_directions_of_wide_adapters_tell_members_without_any_sample() -> None:
    adapters = _wide(96)
    audit = _audit(GaussianPrior.fit(adapters[:64], seed=0), adapters, 64)
    by_name = {attack.name: attack for attack in audit.attacks}
    assert by_name["nearest sample"].advantage < 0.5
    assert by_name["part off the directions"].advantage > 0.8
    assert not audit.passed


def test_adapters_that_touched_nothing_are_all_alike() -> None:
    """Members that are none: intervals must cover an advantage of zero."""
    covered = 0
    for seed in range(40):
        adapters = gaussian_pool(164, seed=seed)
        audit = _audit(GaussianPrior.fit(adapters[:64], seed=0), adapters[64:], 80)
        covered += all(attack.lower <= 0 <= attack.upper for attack in audit.attacks)
    # Each side errs in at most 5% of all runs.
    assert covered >= 34


@pytest.mark.parametrize("area", [0.5, 0.75, 0.95])
def test_the_interval_covers_the_true_area(area: float) -> None:
    from scipy.special import ndtri

    generator = keyed_generator("auc", str(area))
    shift = 2**0.5 * ndtri(area)
    above = 0
    for _ in range(1500):
        members = shift + generator.standard_normal(60)
        others = generator.standard_normal(12)
        found = float(np.mean(members[:, None] > others[None]))
        above += auc_interval(found, 60, 12, 0.95)[1] >= area
    assert above / 1500 > 0.935


@pytest.mark.parametrize("area", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_intervals_contain_the_estimate_and_shrink(area: float) -> None:
    widths = []
    for count in (2, 10, 100, 10_000):
        lower, upper = auc_interval(area, count, count, 0.95)
        assert 0 <= lower <= area <= upper <= 1
        widths.append(upper - lower)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.05
    mirrored = auc_interval(1 - area, 10, 10, 0.95)
    np.testing.assert_allclose(
        auc_interval(area, 10, 10, 0.95), (1 - mirrored[1], 1 - mirrored[0])
    )


def test_too_few_non_members_decide_nothing() -> None:
    pool = gaussian_pool(66)
    prior = GaussianPrior.fit(pool[:64], seed=0)
    few = _audit(prior, pool[:65], 64)
    assert not few.decidable
    assert _audit(prior, gaussian_pool(96), 64).decidable
    assert few.worst.upper > 0.4


def test_scores_depend_on_the_adapter_alone() -> None:
    pool = gaussian_pool(96)
    prior = JitterPrior.fit(pool[:64], seed=0)
    samples = prior.sample(SEED, count=50)
    together = attack_scores(prior, pool, samples)
    alone = attack_scores(prior, pool[7:8], samples)
    for name, scores in together.items():
        # The root of a square that cancels: a distance of zero may come out as 6e-8.
        np.testing.assert_allclose(scores[7], alone[name][0], rtol=1e-9, atol=1e-6)


def test_replication_is_significant_when_samples_are_near() -> None:
    generator = keyed_generator("replication")
    fresh = (1 + generator.random(20)).tolist()
    near = replication_test((0.5 * generator.random(200)).tolist(), fresh)
    assert near.z < -5
    assert near.p_value < 1e-6
    alike = replication_test((1 + generator.random(200)).tolist(), fresh)
    assert abs(alike.z) < 3
    far = replication_test((3 + generator.random(200)).tolist(), fresh)
    assert far.p_value > 0.999


def test_replication_p_values_are_uniform_under_equality() -> None:
    generator = keyed_generator("replication null")
    p = [
        replication_test(generator.random(100).tolist(), generator.random(9).tolist()).p_value
        for _ in range(600)
    ]
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.08
    assert 0.45 < np.mean(p) < 0.55


@pytest.mark.parametrize(
    ("held_out", "members", "guessing", "passing", "lower", "upper"),
    [
        (8, 72, 0.43, 0.71, 0.49, 0.98),
        (13, 115, 0.35, 0.75, 0.61, 0.97),
        (51, 461, 0.19, 0.83, 0.79, 0.95),
    ],
)
def test_the_widths_that_the_documentation_names(
    held_out: int, members: int, guessing: float, passing: float, lower: float, upper: float
) -> None:
    def interval(advantage: float) -> tuple[float, float]:
        low, high = auc_interval((1 + advantage) / 2, members, held_out, 1 - 0.05 / 4)
        return 2 * low - 1, 2 * high - 1

    assert interval(0.0)[1] == pytest.approx(guessing, abs=0.006)
    assert interval(passing - 0.006)[1] < 0.9 < interval(passing + 0.006)[1]
    assert interval(0.9) == pytest.approx((lower, upper), abs=0.006)
