"""Tables dealt out to clients by flwr-datasets."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcert.errors import SettingsError
from fedcert.randomness import keyed_generator
from fedcert.scenarios import load_scenario
from fedcert.simulations.partitions import Partition


def _installed() -> None:
    pytest.importorskip(
        "flwr_datasets", reason="flwr-datasets is not installed: pip install 'fedcert[data]'"
    )


def _partition(kind: str, **changes: Any) -> Partition:
    return Partition(kind, **{"partitions": 10} | changes)


def _dealt(
    kind: str, rows: Sequence[np.ndarray], *, smallest: int = 10, seed: int = 0, **changes: Any
) -> np.ndarray:
    return _partition(kind, **changes).deal(*rows, smallest=smallest, seed=seed)


def _rows() -> tuple[np.ndarray, np.ndarray]:
    """Return 1,000 items of 5 labels, every third one standing there twice."""
    names = [f"item {index}" for index in range(1000)]
    items = np.array(names + names[::3], dtype=object)
    labels = np.arange(1000) % 5
    return items, np.concatenate([labels, labels[::3]]).astype(np.int64)


@pytest.mark.parametrize("kind", ["dirichlet", "pathological"])
def test_an_item_has_one_client_and_the_seed_decides(kind: str) -> None:
    _installed()
    items, labels = _rows()
    clients = _dealt(kind, [items, labels])
    for item in items[:50]:
        assert len(set(clients[items == item])) == 1
    assert len(set(clients)) == 10
    np.testing.assert_array_equal(_dealt(kind, [items, labels]), clients)
    order = keyed_generator("tests/partitions").permutation(len(items))
    shuffled = _dealt(kind, [items[order], labels[order]])
    np.testing.assert_array_equal(shuffled, clients[order])
    assert (_dealt(kind, [items, labels], seed=1) != clients).any()


def test_a_small_alpha_skews_the_labels() -> None:
    _installed()
    items, labels = _rows()

    def skew(alpha: float) -> float:
        clients = _dealt("dirichlet", [items, labels], alpha=alpha, smallest=1)
        shares = [
            np.bincount(labels[clients == client], minlength=5) / (clients == client).sum()
            for client in set(clients)
        ]
        return float(np.mean([share.max() for share in shares]))

    assert skew(0.1) > skew(100.0) + 0.2


def test_pathological_clients_have_the_asked_number_of_labels() -> None:
    _installed()
    items, labels = _rows()
    clients = _dealt("pathological", [items, labels], classes=3)
    assert {len(set(labels[clients == client])) for client in set(clients)} == {3}


def test_what_cannot_be_dealt_out_says_what_to_change() -> None:
    _installed()
    items, labels = _rows()
    with pytest.raises(SettingsError, match="lower `partitions` or `smallest`"):
        _dealt("dirichlet", [items, labels], smallest=500)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "iid"}, "choose dirichlet or pathological"),
        ({"alpha": 0.0}, "positive alpha"),
        ({"partitions": 1}, "at least 2"),
        ({"classes": 1}, "at least 2"),
    ],
)
def test_mistakes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        _partition(changes.pop("kind", "dirichlet"), **changes)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(SettingsError, match=r"fedcert\[data\]"):
        _dealt("dirichlet", _rows())


def test_a_table_without_clients(tmp_path: Path) -> None:
    _installed()
    path = tmp_path / "table.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["input", "label"])
        rows.writerows([f"text number {n}", n % 4] for n in range(2000))
        rows.writerows([f"Text  number {n}", n % 4] for n in range(100))  # the same texts
    options = {
        "source": str(path),
        "partition": "dirichlet",
        "alpha": 1.0,
        "partitions": 12,
        "smallest": 20,
        "smallest_new": 40,
        "new": 3,
    }
    scenario: Any = load_scenario("table", options)
    assert len(scenario.new_clients) == 3
    assert len(scenario.upstream_clients) >= 5
    table = scenario._rows
    sides = [
        {item for rows in part.values() for item in table.items[rows]}
        for part in scenario._parts
    ]
    assert not sides[0] & sides[1]
    with pytest.raises(SettingsError, match="leave one of them out"):
        load_scenario("table", options | {"held_out": "label=1"})
