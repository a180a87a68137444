"""Noised means over rounds: what they hide, and how often one client is in them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from fedcert.errors import SettingsError
from fedcert.privacy import RoundsPrivacy, dealt_clients, delta_of, epsilon_of
from fedcert.randomness import keyed_generator

PRIVACY = RoundsPrivacy(clip=2.0, epsilon=4.0, delta=1e-5, clients=5, rounds=3)
SHAPES = {"one": (3, 2), "two": (4,)}
Arrays = dict[str, np.ndarray]


def sent(*lengths: float) -> list[Arrays]:
    """Return what clients send: long in all modules together."""
    generator = keyed_generator("sent")
    made = []
    for length in lengths:
        arrays = {name: generator.standard_normal(shape) for name, shape in SHAPES.items()}
        made.append({name: length * array / norm(arrays) for name, array in arrays.items()})
    return made


def norm(arrays: Arrays) -> float:
    return float(np.sqrt(sum(np.square(array).sum() for array in arrays.values())))


def released(clients: list[Arrays]) -> Arrays:
    return PRIVACY.release(clients, SHAPES, generator=keyed_generator("same"))


@pytest.mark.parametrize("length", [0.1, 2.0, 1e9])
def test_a_client_moves_a_round_by_at_most_what_the_noise_is_for(length: float) -> None:
    one, *others = sent(length, 0.3, 7.0, 2.0, 1e6)
    opposite = {name: -array for name, array in one.items()}
    answers = {
        "one": released([one, *others]),
        "opposite": released([opposite, *others]),
        # It failed: the others count no more for that.
        "absent": released(others),
    }
    moved = {
        name: norm({key: array - answers["one"][key] for key, array in answer.items()})
        for name, answer in answers.items()
    }
    most = 2 * PRIVACY.clip / PRIVACY.clients
    assert moved["opposite"] == pytest.approx(most * min(length / PRIVACY.clip, 1), rel=1e-3)
    assert moved["absent"] <= most / 2 * 1.001


def test_all_rounds_of_a_client_together_keep_the_promise() -> None:
    mu_of_one = 2 * PRIVACY.clip / PRIVACY.clients / PRIVACY.noise_deviation
    together = PRIVACY.rounds**0.5 * mu_of_one
    assert delta_of(together, PRIVACY.epsilon) <= PRIVACY.delta * 1.001
    # With less noise the promise would not hold.
    assert delta_of(1.01 * together, PRIVACY.epsilon) > PRIVACY.delta


def test_the_noise_is_as_large_as_it_says() -> None:
    drawn = PRIVACY.release([], {"w": (300, 300)}, generator=keyed_generator("noise"))
    assert drawn["w"].std() == pytest.approx(PRIVACY.noise_deviation, rel=0.02)


def test_what_was_published_before_counts() -> None:
    assert PRIVACY.notes()["epsilon"] == pytest.approx(4.0)
    twice = PRIVACY.notes(before=[PRIVACY.mu])
    together = epsilon_of(2**0.5 * PRIVACY.mu, 1e-5)
    assert twice["epsilon"] == pytest.approx(together, rel=1e-5)
    assert f"e^{together:.3g}" in twice["words"]
    assert twice["mu"] == pytest.approx(2**0.5 * PRIVACY.mu)


def test_noise_for_fewer_clients_than_answered_is_refused() -> None:
    with pytest.raises(SettingsError, match="for 5 clients and no more"):
        released(sent(*[1.0] * 6))
    with pytest.raises(SettingsError, match="a client, and a round, at least"):
        RoundsPrivacy(1.0, 4.0, 1e-5, clients=0, rounds=1)


@pytest.mark.parametrize(
    ("total", "count", "rounds"), [(7, 3, 5), (8, 4, 6), (5, 5, 3), (3, 9, 2)]
)
def test_nobody_is_asked_more_often_than_it_must(total: int, count: int, rounds: int) -> None:
    names = [f"client-{index}" for index in range(total)]
    dealt = [dealt_clients(names, count, number, seed=3) for number in range(1, rounds + 1)]
    asked = min(count, total)
    assert all(len({*row}) == len(row) == asked and row == sorted(row) for row in dealt)
    counted = Counter(name for row in dealt for name in row)
    assert max(counted.values()) == -(-rounds * asked // total)
    assert dealt_clients(names[::-1], count, 1, seed=3) == dealt[0]
    if asked < total:
        assert dealt != [dealt_clients(names, count, n + 1, seed=4) for n in range(rounds)]
