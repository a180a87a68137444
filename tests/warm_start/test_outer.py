"""The server's part: weights, momentum, and the linear model of the paper."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from fedcert.adapters.space import Target
from fedcert.randomness import keyed_generator
from fedcert.warm_start import Trunk, TrunkTensors
from fedcert.warm_start.outer import (
    RoundMean,
    ServerOptimizer,
    capped_simplex,
    norm_of,
    round_weights,
    shortened,
    tail_weights,
)

SIDE = 10
LINEAR = Trunk("0" * 64, SIDE, 0, (Target("w", SIDE, SIDE),))
"""A trunk of one module; with A the identity its B is the matrix itself."""

Matrix = npt.NDArray[np.float64]


def best_repair(matrix: Matrix, rank: int) -> Matrix:
    """Return the personal adapter of a client: the nearest matrix of a rank."""
    left, values, right = np.linalg.svd(matrix)
    return np.asarray((left[:, :rank] * values[:rank]) @ right[:rank])


def linear_model(seed: int, tasks: int) -> tuple[Matrix, list[Matrix]]:
    """Return W* and the tasks' own matrices W* + Q, each Q of rank 1."""
    generator = keyed_generator("linear model", seed)
    common = generator.standard_normal((SIDE, SIDE))
    own = [
        common + generator.standard_normal((SIDE, 1)) @ generator.standard_normal((1, SIDE))
        for _ in range(tasks)
    ]
    return common, own


def warmed(tasks: list[Matrix], *, personal: int) -> Matrix:
    """Run rounds on the linear model: the personal part is exact, then the trunk moves."""
    trunk, optimizer = LINEAR.zeros(), ServerOptimizer(rate=0.5)
    for _ in range(3000):
        mean = RoundMean(LINEAR)
        for task in tasks:
            missing = task - trunk["w"]
            repaired = best_repair(missing, personal) if personal else 0.0
            mean.add({"w": (missing - repaired).astype(np.float32)}, 1 / len(tasks))
        trunk = optimizer.step(trunk, mean.total)
    return trunk["w"].astype(np.float64)


@pytest.mark.parametrize("seed", range(3))
def test_three_tasks_recover_what_two_and_standard_retraining_do_not(seed: int) -> None:
    """Block et al., NeurIPS 2025: what a new task lacks after a repair of rank 1."""
    common, tasks = linear_model(seed, 4)
    new, lacking = tasks.pop(), {}
    for name, upstream, personal in (
        ("three", tasks, 1),
        ("two", tasks[:2], 1),
        ("standard", tasks, 0),
    ):
        missing = new - warmed(upstream, personal=personal)
        lacking[name] = float(np.linalg.norm(missing - best_repair(missing, 1)))
    assert lacking["three"] < 1e-2
    assert lacking["two"] > 0.1
    assert lacking["standard"] > 1.0
    assert np.linalg.norm(common) > 1.0


def test_weights_are_capped_and_sum_to_one() -> None:
    for examples in ([100] * 8, [10**6, *[10] * 7], [1, 2], [5]):
        weights = round_weights(examples)
        assert weights.sum() == pytest.approx(1)
        assert weights.max() <= max(3 / len(examples), 1 / len(examples)) + 1e-9
    np.testing.assert_allclose(round_weights([1, 3]), [0.25, 0.75])
    np.testing.assert_allclose(capped_simplex(np.array([0.2, 0.3, 0.5]), 1.0), [0.2, 0.3, 0.5])


def test_a_high_loss_weighs_more_but_takes_nothing_over() -> None:
    names = [f"client-{index}" for index in range(12)]
    weights = dict.fromkeys(names, 1 / 12)
    for _ in range(50):
        losses = dict.fromkeys(names, 0.1) | {"client-0": 1.0, "client-1": float("inf")}
        weights = tail_weights(weights, losses, rate=0.5)
        assert sum(weights.values()) == pytest.approx(1)
        assert max(weights.values()) <= 3 / 12 + 1e-9
    assert weights["client-0"] > 1 / 12
    assert weights["client-2"] < 1 / 12


def test_a_long_delta_is_shortened_to_three_medians() -> None:
    delta: TrunkTensors = {"w": np.full((SIDE, SIDE), 7.0, dtype=np.float32)}
    norm = norm_of(delta)
    assert norm == pytest.approx(70)
    assert norm_of(shortened(delta, norm, 10.0)) == pytest.approx(30, rel=1e-5)
    assert shortened(delta, norm, 30.0) is delta


@pytest.mark.parametrize(
    ("optimizer", "moved"),
    [
        (ServerOptimizer(), [1, 2, 3]),
        (ServerOptimizer(rate=0.5), [0.5, 1, 1.5]),
        # m = 1, 1.5, 1.75
        (ServerOptimizer(momentum=0.5), [1, 2.5, 4.25]),
        # 1 + .5 m
        (ServerOptimizer(momentum=0.5, nesterov=True), [1.5, 3.25, 5.125]),
    ],
)
def test_the_server_moves_along_the_mean(
    optimizer: ServerOptimizer, moved: list[float]
) -> None:
    trunk = LINEAR.zeros()
    for wanted in moved:
        trunk = optimizer.step(trunk, {"w": np.ones((SIDE, SIDE))})
        assert trunk["w"].dtype == np.float32
        np.testing.assert_allclose(trunk["w"], wanted, rtol=1e-6)
