"""Tables of tickets: what is drawn, and the page about them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fedcert.simulations.benchmarks.tables_page import tables_page
from fedcert.simulations.benchmarks.ticket_tables import TicketTable
from fedcert.simulations.clinc import Request

TABLE = TicketTable("t", 12, 30, ("a", "b", "c"), 2, 0.0)
REQUESTS = [
    Request(f"text {domain} {intent} {i}", f"intent {domain} {intent}", f"domain {domain}")
    for domain in range(5)
    for intent in range(3)
    for i in range(20)
]


def test_a_table_is_drawn_by_its_seed() -> None:
    rows = list(TABLE.rows(REQUESTS, seed=0))
    assert rows == list(TABLE.rows(REQUESTS, seed=0))
    assert rows != list(TABLE.rows(REQUESTS, seed=1))
    assert set(Counter(company for _, _, company in rows).values()) == {30}
    assert {queue for _, queue, _ in rows} == {"a", "b", "c"}


def test_companies_follow_archetypes() -> None:
    policies = {}
    for text, queue, company in TABLE.rows(REQUESTS, seed=0):
        domain = text.split()[1]
        assert policies.setdefault((company, domain), queue) == queue
    ways = {domain: {q for (_, d), q in policies.items() if d == domain} for domain in "01234"}
    assert all(1 <= len(queues) <= 2 for queues in ways.values())
    assert any(len(queues) == 2 for queues in ways.values())


def test_the_page_says_how_far_ahead() -> None:
    def row(method: str, bounds: list[float]) -> dict[str, Any]:
        about = {"scenario": "companies", "method": method, "n": 64, "seed": 0, "upstream": 32}
        measured = {"clients": 2, "error": 0.2, "chance": 0.667, "run_seconds": 12.0}
        return about | measured | {"bounds": bounds}

    record = {
        "machine": {"cores": 2, "cpu": "a processor"},
        "missing": {"sites": "not run yet"},
        "table": [row("planned", [0.3, 0.4]), row("local", [0.5, 0.5])],
    }
    page = tables_page(record)
    assert (
        "| 64 | 1 | 32 | 2 | 0.667 | 0.350 (0.200) | 0.500 (0.200) | +0.150 ± 0.050 | +0.150 |"
        in page
    )
    # Another seed, in which both clients gain less: the seeds differ by more than the clients.
    other = [row("planned", [0.4, 0.4]), row("local", [0.4, 0.4])]
    record["table"] += [each | {"seed": 1, "upstream": 30} for each in other]
    assert "| 64 | 2 | 32, 30 | 4 | 0.667 |" in tables_page(record)
    assert "| +0.075 ± 0.075 | +0.150, +0.000 |" in tables_page(record)
    assert "`sites` (not run yet)" in page
