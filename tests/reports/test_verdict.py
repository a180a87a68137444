"""What a run means, in words."""

from __future__ import annotations

from typing import Any

import pytest

from fedcert.reports.results import read_results
from fedcert.reports.summary import headline
from fedcert.reports.verdict import verdict


def _said(bounds: list[float], local: list[float], **more: Any) -> str:
    rows = [
        {"client": f"c{i}", "n": 64, "bound": b, **({"local_bound": local[i]} if local else {})}
        for i, b in enumerate(bounds)
    ]
    content = {"format": "fedcert.results/1", "scenario": "s", "clients": rows, "chance": 0.5}
    results = read_results(content | more)
    return " ".join(verdict(results, headline(results)))


@pytest.mark.parametrize(
    ("bounds", "local", "words"),
    [
        ([0.2, 0.3, 0.25], [0.4, 0.45, 0.4], "Usable: certificates are 25.0% on average"),
        ([0.2, 0.3, 0.25], [0.4, 0.45, 0.4], "The federation pays: a head trained on half"),
        ([0.4, 0.45, 0.4], [0.2, 0.3, 0.25], "The federation does not pay here"),
        ([0.2, 0.4, 0.3], [0.4, 0.2, 0.3], "no clear difference"),
        # Lower by one and a half standard errors.
        ([0.2, 0.3, 0.25], [0.25, 0.3, 0.4], "no clear difference"),
        ([0.6, 0.7, 0.6], [0.8, 0.9, 0.8], "cannot be told before certificates say more"),
        ([0.6, 0.7, 0.6], [0.2, 0.3, 0.25], "The federation does not pay here"),
        ([0.2], [0.4], "one client cannot tell: a head trained on half"),
        ([0.6, 0.7, 0.4], [], "Not usable: certificates are 56.7% on average"),
    ],
)
def test_what_a_run_means(bounds: list[float], local: list[float], words: str) -> None:
    assert words in _said(bounds, local)


def test_few_clients_are_named() -> None:
    few = _said([0.2, 0.3], [], prior={"pool_size": 6})
    assert "Few clients: 6 adapters came in. The default adapter and local training" in few
    assert "Few clients" not in _said([0.2, 0.3], [], prior={"pool_size": 64})


def test_nothing_is_said_of_what_was_not_measured() -> None:
    content = {"format": "fedcert.results/1", "scenario": "s", "clients": []}
    results = read_results(content)
    assert verdict(results, headline(results)) == []
