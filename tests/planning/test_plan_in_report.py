"""The report shows the plan if there is one, and nothing about it otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from fedcert.errors import FedcertError
from fedcert.reports import render_report

ROWS = [
    {"n": 16, "recipe": "union", "mean": 0.41, "low": 0.3, "high": 0.62, "clients": 19},
    {
        "n": 1024,
        "recipe": "split <0.25>",
        "mean": 0.021,
        "low": 0.02,
        "high": 0.02,
        "clients": 1,
    },
]


def _page(plan: Any) -> str:
    return render_report(
        {"format": "fedcert.results/1", "scenario": "x", "clients": [], "plan": plan}
    )


def test_the_plan_is_drawn_and_listed() -> None:
    page = _page(ROWS)
    for text in ("16 examples: union", "1,024 examples: split &lt;0.25&gt;", "41.0%", "2.1%"):
        assert text in page
    assert "<0.25>" not in page
    assert page.count("10% quantile") > 0
    assert 'aria-label="The plan by number of examples"' in page


def test_a_plan_for_the_tail_shows_the_tail() -> None:
    assert "worst quarter" not in _page(ROWS)
    page = _page([row | {"tail": 0.734} for row in ROWS])
    assert "mean of the worst quarter" in page
    assert "73.4%" in page


@pytest.mark.parametrize("plan", [None, []])
def test_without_a_plan_there_is_no_section(plan: object) -> None:
    assert 'id="plan"' not in _page(plan)


def test_a_damaged_plan_is_named() -> None:
    with pytest.raises(FedcertError, match=r"bad value at 'plan\.0\.mean'"):
        _page([{**ROWS[0], "mean": 1.5}])


def test_a_plan_far_below_one_percent_still_has_an_axis() -> None:
    row = {**ROWS[0], "mean": 0.003, "low": 0.002, "high": 0.004}
    assert "0.3%" in _page([row])
