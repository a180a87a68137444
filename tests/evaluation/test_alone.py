"""What new clients would certify alone: all at their own n, a few of them at less."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny_models import Family

from fedcert.data import Examples
from fedcert.evaluation.alone import alone, bounds_alone

CLIENTS = ("ann", "bob", "cleo")


class Three:
    """Three new clients of a tiny model."""

    new_clients, labels = CLIENTS, ("bad", "good")

    def __init__(self, family: Family) -> None:
        self._family, self.asked = family, 0

    def support_examples(self, client: str, size: int) -> Examples:
        examples = self._family.examples(16, seed=CLIENTS.index(client))
        return examples.take(slice(0, size))

    def test_examples(self, client: str) -> Examples:
        self.asked += 1
        return self._family.examples(20, seed=10 + CLIENTS.index(client))


@pytest.fixture
def scenario(vit: Family) -> Any:
    return Three(vit)


def test_sizes_share_their_clients_and_change_nothing(vit: Family, scenario: Any) -> None:
    asked = {"clients": CLIENTS, "delta": 0.05}
    together = alone(vit.adapted(), scenario, sizes=[8, 16], **asked)
    assert scenario.asked == len(CLIENTS)  # once for all sizes
    assert {n: [*rows] for n, rows in together.items()} == {8: [*CLIENTS], 16: [*CLIENTS]}
    for n, rows in together.items():
        apart = alone(vit.adapted(), scenario, sizes=[n], **asked)[n]
        for client, row in rows.items():
            assert row == pytest.approx(apart[client])


def test_all_are_certified_at_the_largest_size_and_a_few_at_less(
    vit: Family, scenario: Any
) -> None:
    done: list[int] = []
    found = alone(
        vit.adapted(),
        scenario,
        clients=["ann", "cleo"],
        sizes=[8, 16],
        delta=0.05,
        most=1,
        on_step=done.append,
    )
    assert {n: [*rows] for n, rows in found.items()} == {8: ["ann"], 16: ["ann", "cleo"]}
    assert sum(done) == 2
    rows = bounds_alone(found, among=["ann"])
    assert [row["n"] for row in rows] == [8, 16]
    for row in rows:
        own = found[row["n"]]["ann"]
        assert row["bound"] == own["local_bound"]
        assert np.isclose(row["test_error"], own["local_error"])
