"""Robust pooling: hostile uploads are left out, honest ones stay."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fedcert.pool.robustness import SMALLEST, Screening, screen_pool
from fedcert.randomness import keyed_generator

Attack = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _honest(count: int, *, dimension: int = 300, seed: int = 0) -> np.ndarray:
    """Draw adapters of tasks with six yes-or-no attributes, and the noise of training."""
    generator = keyed_generator("honest", seed)
    mixing = keyed_generator("honest mixing").standard_normal((6, dimension))
    tasks = generator.choice([-1.0, 1.0], (count, 6))
    center = 2 * keyed_generator("honest center").standard_normal(dimension)
    return center + tasks @ mixing + 0.6 * generator.standard_normal((count, dimension))


ATTACKS: dict[str, Attack] = {
    "sign-flipped": lambda rows, _: -rows,
    "scaled up": lambda rows, _: 5 * rows,
    "scaled down": lambda rows, _: 0.1 * rows,
    "moved together": lambda rows, g: rows + 3 * g.standard_normal(rows.shape[1]),
    "noise": lambda rows, g: (
        rows.mean(axis=0) + rows.std(axis=0) * g.standard_normal(rows.shape)
    ),
    "loud noise": lambda rows, g: 30 * g.standard_normal(rows.shape),
    "one coordinate": lambda rows, _: rows + 300 * np.eye(rows.shape[1])[7],
}


def _attacked(attack: Attack, *, dimension: int, share: float) -> tuple[np.ndarray, set[int]]:
    pool = _honest(100, dimension=dimension)
    generator = keyed_generator("attack")
    rows = generator.choice(100, round(100 * share), replace=False)
    pool[rows] = attack(pool[rows], generator)
    return pool, set(rows.tolist())


@pytest.mark.parametrize("dimension", [100, 300, 2600])
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_fifth_of_hostile_uploads_is_found(attack: Attack, dimension: int) -> None:
    pool, hostile = _attacked(attack, dimension=dimension, share=0.2)
    dropped = set(screen_pool(pool).dropped)
    assert len(hostile - dropped) <= 1
    assert len(dropped - hostile) <= 3


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_single_hostile_upload_is_found(attack: Attack) -> None:
    pool = _honest(60)
    pool[7] = attack(pool[[7, 8, 9]], keyed_generator("attack"))[0]
    assert 7 in screen_pool(pool).dropped


@pytest.mark.parametrize("spread", [0.0, 1e-12, 1e-3, 0.03])
def test_copies_become_one(spread: float) -> None:
    pool = _honest(100)
    noise = spread * keyed_generator("copies").standard_normal((20, 300))
    pool[40:60] = pool[40] + noise
    screening = screen_pool(pool)
    assert set(screening.dropped) == set(range(41, 60))
    assert screening.reasons == {"the same as another upload": 19}


def test_copies_that_are_most_of_the_pool_become_one() -> None:
    pool = _honest(100)
    pool[20:] = pool[20]
    assert screen_pool(pool).kept.tolist() == list(range(21))


def test_honest_pools_lose_almost_nobody() -> None:
    lost = total = 0
    for seed in range(12):
        for dimension, count in ((40, 128), (300, 64), (1000, 40)):
            screening = screen_pool(_honest(count, dimension=dimension, seed=seed))
            lost, total = lost + len(screening.dropped), total + count
    assert lost / total < 0.015


@pytest.mark.parametrize("dimension", [5, 2000])
def test_an_honest_pool_without_shared_directions_loses_almost_nobody(dimension: int) -> None:
    pool = keyed_generator("structureless").standard_normal((120, dimension))
    assert len(screen_pool(pool).dropped) <= 2


def test_honest_pools_with_heavy_tails_lose_few() -> None:
    generator = keyed_generator("heavy tails")
    latents = generator.standard_t(5, (200, 6))
    pool = latents @ generator.standard_normal((6, 300))
    pool += 0.5 * generator.standard_normal(pool.shape)
    assert len(screen_pool(pool).dropped) < 6


def test_coordinates_that_never_vary_do_not_matter() -> None:
    pool = _honest(80)
    constant = np.hstack([np.zeros((80, 40)), np.full((80, 3), 0.1), pool])
    assert screen_pool(constant).dropped == screen_pool(pool).dropped
    constant[11, 2] = 50.0
    assert 11 in screen_pool(constant).dropped


@pytest.mark.parametrize("count", [0, 1, 2, 3, SMALLEST - 1])
def test_small_pools_lose_copies_only(count: int) -> None:
    pool = _honest(count)
    if count > 2:
        pool[1] *= 1e6
        pool[2] = pool[0]
    assert list(screen_pool(pool).dropped) == ([2] if count > 2 else [])


def test_nobody_is_dropped_where_nobody_is_the_majority() -> None:
    pool = np.full((40, 30), 0.3)
    assert screen_pool(pool).kept.tolist() == [0]
    two = np.concatenate([_honest(30), 50 + _honest(30, seed=1)])
    assert len(screen_pool(two).kept) >= 30


def test_the_result_does_not_depend_on_scale_or_place() -> None:
    pool, _ = _attacked(ATTACKS["noise"], dimension=300, share=0.2)
    plain = screen_pool(pool)
    assert screen_pool(1e-3 * pool + 5).dropped.keys() == plain.dropped.keys()


def test_what_was_dropped_is_said_in_a_line() -> None:
    nothing = Screening(np.arange(3), {})
    assert (nothing.summary, nothing.reasons) == ("", {})
    some = Screening(np.arange(3), {3: "b", 4: "a", 5: "b"})
    assert some.reasons == {"a": 1, "b": 2}
    assert some.summary == "3 of 6 uploads left out of the fit: 1 a, 2 b"
