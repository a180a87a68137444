"""Tests for the page of recipes, of which a part alone may have been measured."""

from __future__ import annotations

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
