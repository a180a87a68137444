"""Pages of which a benchmark owns a part."""

from __future__ import annotations

import pytest

from fedcert.simulations.benchmarks.publishing import between_markers
from fedcert.simulations.benchmarks.scenarios import main

PAGE = "before\n<!-- x: begin -->\nold\n<!-- x: end -->\nafter\n"


def test_only_what_stands_between_the_markers_changes() -> None:
    page = between_markers(PAGE, "x", "new")
    assert page == "before\n<!-- x: begin -->\n\nnew\n\n<!-- x: end -->\nafter\n"
    assert between_markers(page, "x", "new") == page


@pytest.mark.parametrize(
    "page", ["", "<!-- x: begin -->", "<!-- x: end --><!-- x: begin -->", PAGE + PAGE]
)
def test_markers_must_be_there_once_and_in_order(page: str) -> None:
    with pytest.raises(ValueError, match="once, in this order"):
        between_markers(page, "x", "new")


def test_an_unknown_scenario_is_named() -> None:
    with pytest.raises(SystemExit, match="no scenario 'intentz'"):
        main(["intentz"])
