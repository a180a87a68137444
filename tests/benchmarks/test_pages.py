"""Pages with figures are those that their records render: nobody edits them by hand."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from fedcert.simulations.benchmarks.choosing_page import CHOSEN_FROM, choosing_page
from fedcert.simulations.benchmarks.everything import BENCHMARKS, Benchmark
from fedcert.simulations.benchmarks.publishing import record_of

_DOCS = Path(__file__).resolve().parents[2] / "docs"
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def _assert_rendered(path: str, text: str) -> None:
    """Compare words to the letter, and numbers up to a mean's last bits when it is rounded."""
    there = (_DOCS / path).read_text(encoding="utf-8")
    assert _NUMBER.sub("#", there) == _NUMBER.sub("#", text), path
    found, rendered = (np.array(_NUMBER.findall(each), dtype=float) for each in (there, text))
    np.testing.assert_allclose(found, rendered, rtol=1e-3, atol=1.1e-3, err_msg=path)


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda one: one.name)
def test_a_page_is_what_its_record_renders(benchmark: Benchmark) -> None:
    documents = benchmark.documents
    assert documents, f"make bench-{benchmark.name} was never run"
    for path, text in documents.items():
        _assert_rendered(path, text)


def test_the_page_on_recipes_is_what_the_records_render() -> None:
    _assert_rendered("which-recipe.md", choosing_page({n: record_of(n) for n in CHOSEN_FROM}))
