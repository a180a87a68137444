"""What a run comes to, in words for somebody who has to decide."""

from __future__ import annotations

from math import ceil
from typing import Any

import pytest

from fedcert.certificates.bounds import binomial_upper_bound
from fedcert.reports import render_report
from fedcert.reports.answers import Answers, answers, labels_for
from fedcert.reports.results import Client, read_results
from fedcert.reports.summary import headline


def _words(results: dict[str, Any], **changes: Any) -> Answers | None:
    checked = read_results(results | changes)
    return answers(checked, headline(checked))


def _clients(errors: int, count: int) -> list[dict[str, Any]]:
    bound = binomial_upper_bound(errors, count, 0.05)
    counted = {"errors": errors, "certified_on": count, "n": 2 * count, "bound": bound}
    return [{"client": f"c{i}", "test_error": 0.1, **counted} for i in range(3)]


def test_clients_on_their_own_are_beside_it(results: dict[str, Any]) -> None:
    rows = [row | {"local_bound": 0.41, "local_error": 0.2} for row in _clients(3, 32)]
    words = _words(results, clients=rows)
    assert words is not None
    assert "certifies 41.0% with the other half, and errs on 20.0%." in words.good
    words = _words(results, clients=_clients(3, 32))
    assert words is not None
    assert "on its own" not in words.good


def test_without_certificates_there_is_no_verdict(results: dict[str, Any]) -> None:
    assert _words(results, clients=[]) is None


@pytest.mark.parametrize("target", [0.2, 0.15])
def test_so_many_labels_would_bring_the_certificate_there(target: float) -> None:
    factor = labels_for([Client(**row) for row in _clients(3, 32)], target)
    assert factor is not None
    assert binomial_upper_bound(ceil(factor * 3), round(factor * 32), 0.05) <= target


def test_no_number_of_labels_gets_below_the_errors_themselves() -> None:
    assert labels_for([Client(**row) for row in _clients(8, 32)], 0.2) is None


def test_more_labels_or_a_better_prior(results: dict[str, Any]) -> None:
    words = _words(results, clients=_clients(3, 32))
    assert words is not None
    assert "a client needs about" in words.following
    words = _words(results, clients=_clients(13, 32))
    assert words is not None
    assert "A better prior" in words.following


def test_the_page_answers_before_it_plots(results: dict[str, Any]) -> None:
    served = [
        {"recipe": "served", "n": n, "bound": bound, "test_error": 0.1}
        for n, bound in ((32, 0.3), (64, 0.2))
    ]
    alone = [{"n": 32, "bound": 0.4, "test_error": 0.2}, {"n": 64, "bound": 0.3}]
    page = render_report(
        results
        | {
            "finished": "2026-11-29T12:30+00:00",
            "bound_by_n": [*results["bound_by_n"], *served],
            "local": {"by_n": alone},
            "data": {
                "digest": "d" * 64,
                "examples": {"new clients": 40},
                "labels": {"new clients": {"other": 30, "mine": 10}},
            },
        }
    )
    assert page.index("What next?") < page.index("<svg")
    sizes = page[page.index('id="sizes"') : page.index('id="prior"')]
    for text in (">served ", ">alone ", ">alone</th>"):
        assert text in sizes
    # Of the test errors only those of what served, and of clients on their own.
    assert page[page.index("sizes-760") :].partition("<details>")[0].count("test error ") <= 4
    assert "2026-11-29 12:30 UTC" in page
    assert "d" * 64 in page
    assert "75.0%" in page
