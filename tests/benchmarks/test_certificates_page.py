"""Tests for the page of recipes, of which a part alone may have been measured."""

from __future__ import annotations

from fedcert.planning.menu import menu, recipe_name
from fedcert.simulations.benchmarks.certificates_page import certificates_page
from fedcert.simulations.benchmarks.publishing import page_of, record_of


def test_the_page_is_rendered_from_the_record() -> None:
    record = record_of("certificates")
    assert certificates_page(record) == page_of("certificates.md")


def test_a_part_alone_has_a_page() -> None:
    record = record_of("certificates")
    page = certificates_page({"coverage": record["coverage"]})
    assert "## Coverage" in page
    assert "limit" not in page


def test_violations_above_delta_have_an_exact_p() -> None:
    row = {"recipe": "union", "case": "a", "episodes": 100, "delta": 0.05}
    page = certificates_page(
        {
            "coverage": [
                row | {"violations": 4},
                row | {"violations": 9},
                row | {"violations": 0},
            ]
        }
    )
    # P(Binomial(100, 0.05) >= 9) = 0.0631, and three times that.
    assert "| union | a | 100 | 9 | 5 | 0.063 |" in page
    assert "| union | a | 100 | 0 | 5 | 1.000 |" in page
    assert "1 of 3 rows have more" in page
    assert "The smallest p is 0.063; times 3 rows (Bonferroni) that is 0.19." in page


def test_the_page_names_what_the_menu_of_a_scenario_lacks() -> None:
    recipes = menu(candidates=1000, delta=0.05, constants=2, local_head=True)
    row = {
        "n": 16, "clients": 2, "limit": 0.1, "limit_method": "local LoRA", "se": 0.0,
        "mean_certificate": 0.2, "mean_error": 0.1, "nonvacuous": 1.0,
    }  # fmt: skip
    tables = {
        scenario: [
            row | {"scenario": scenario, "recipe": recipe_name(recipe)} for recipe in measured
        ]
        for scenario, measured in (("whole", recipes), ("older", recipes[1:]))
    }
    page = certificates_page(
        {
            "candidates": 1000,
            "delta": 0.05,
            "machine": {"cpu": "some", "cores": 2},
            "seeds": {"whole": [0], "older": [0]},
            "missing": {},
            "table": [*tables["whole"], *tables["older"]],
        }
    )
    whole, older = page.split("## `older`")
    assert "## `whole`" in whole
    assert "older menu" not in whole
    assert "well by now: union. *planned*" in older
