"""Each figure draws plain data, also at its extremes, and stays inside its frame."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcert.reports import figures, formats, prior_figures
from fedcert.reports.curves import Curve, draw_curves, spread_apart
from fedcert.reports.figures import Bar, ClientBar, SizeAndBound
from fedcert.reports.svg import NARROW, WIDE

SVG = "{http://www.w3.org/2000/svg}"

EXTREMES: dict[str, Callable[[], str]] = {
    "one client": lambda: figures.certificates_by_client(
        [ClientBar("a", 1.0, None)], chance=None
    ),
    "perfect client": lambda: figures.certificates_by_client(
        [ClientBar("a", 0.0, 0.0)], chance=None
    ),
    "error above the bound": lambda: figures.certificates_by_client(
        [ClientBar("a", 0.1, 0.97)], chance=0.5, width=NARROW
    ),
    "long names": lambda: figures.certificates_by_client(
        [ClientBar("名" * 200, 0.3, 0.1), ClientBar("$x^$", 0.3, 0.1)], chance=0.9
    ),
    "one size": lambda: figures.bound_by_size(
        {"union": [SizeAndBound(16, 0.5, None)]}, chance=None
    ),
    "many recipes": lambda: figures.bound_by_size(
        {f"recipe {i}": [SizeAndBound(n, 0.5, 0.5) for n in (16, 64)] for i in range(9)},
        chance=0.5,
        width=NARROW,
    ),
    "one M": lambda: figures.best_of_m({"pool": [(1, 0.5, None)]}),
    "flat profile": lambda: figures.best_of_m({"pool": [(1, 0.0, 0.0), (10**6, 0.0, 0.0)]}),
    "one adapter": lambda: prior_figures.adapter_map({"pool": [(1.0, 1.0)]}),
    "pure replay": lambda: prior_figures.nearest_distances([0.0, 0.0], []),
    "nothing sent": lambda: figures.labeled_bars(
        {"": [Bar("upload", 0, "0 B")]}, name="bars", label="bars"
    ),
}


@pytest.mark.parametrize("case", EXTREMES)
def test_extremes_draw_one_finite_svg(case: str) -> None:
    text = EXTREMES[case]()
    root = ET.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert "nan" not in text
    assert "inf" not in text


def test_only_ids_that_something_refers_to_are_kept_and_they_carry_the_name() -> None:
    text = figures.certificates_by_client([ClientBar("a", 0.5, 0.1)], chance=0.5)
    ids = re.findall(r' id="([^"]*)"', text)
    assert ids
    assert all(name.startswith(f"clients-{WIDE}-") for name in ids)
    assert set(ids) == set(re.findall(r'href="#([^"]*)"', text))


def test_colors_and_fonts_come_from_the_page() -> None:
    text = figures.certificates_by_client([ClientBar("a", 0.5, 0.1)], chance=0.5)
    bare = re.sub(r"var\(--fc-\w+, #[0-9a-f]{6}\)", "", text)
    assert not re.search(r"#[0-9a-f]{6}", bare)
    assert "DejaVu" not in text


def test_marks_stand_at_their_values() -> None:
    text = figures.certificates_by_client(
        [ClientBar("a", 0.8, 0.2), ClientBar("b", 0.8, 0.4)], chance=None
    )
    uses = list(ET.fromstring(text).iter(f"{SVG}use"))
    places = sorted({float(element.attrib["x"]) for element in uses})
    # Marks at .2, .4 and .8 are equally far apart as 1, 2 and 4 from the origin.
    first, second, third = places[-3:]
    assert third - second == pytest.approx(2 * (second - first), abs=0.05)


def test_clients_are_sorted_by_test_error_and_unmeasured_ones_come_last() -> None:
    rows = [ClientBar("a", 0.3, None), ClientBar("b", 0.9, 0.2), ClientBar("c", 0.5, 0.1)]
    assert [row.client for row in figures.thinned(rows)] == ["c", "b", "a"]


def test_ticks_below_one_and_dotted_lines_are_named_for_what_they_are() -> None:
    points = [(0.001, 0.2), (0.1, 0.3), (1000.0, 0.4)]
    drawn = draw_curves(
        [Curve("solid", "gray", points), Curve("other", "gray", points, dotted=True)],
        name="pulls",
        label="",
        x_title="pull",
        y_title="error",
        base=10,
        width=WIDE,
        dotted="elsewhere",
    )
    texts = {element.text for element in ET.fromstring(drawn).iter(f"{SVG}text")}
    assert {"0.001", "0.1", "1,000", "elsewhere 40.0%"} <= texts, texts


def test_thinning_keeps_both_ends() -> None:
    rows = [ClientBar(str(i), 1.0, i / 5000) for i in range(5000)]
    kept = figures.thinned(rows)
    assert len(kept) == figures.MOST_ROWS
    assert (kept[0], kept[-1]) == (rows[0], rows[-1])


shares = st.floats(0, 1, allow_nan=False)


@given(st.lists(shares, min_size=1, max_size=12))
def test_labels_keep_their_distance_and_order(places: list[float]) -> None:
    moved = spread_apart(places, 0.05, 0.0, 1.0)
    ordered = sorted(moved)
    assert all(b - a >= 0.05 - 1e-9 for a, b in pairwise(ordered))
    assert ordered[0] >= -1e-9
    assert ordered[-1] <= 1 + 1e-9
    by_place = [moved[i] for i in sorted(range(len(places)), key=lambda i: places[i])]
    assert by_place == ordered


@given(shares)
def test_a_printed_bound_is_never_below_the_bound(bound: float) -> None:
    printed = float(formats.percent_up(bound).rstrip("%")) / 100
    assert bound - 1e-11 <= printed <= bound + 0.001 + 1e-11
    for places in (3, 4):
        printed = float(formats.decimal_up(bound, places))
        assert bound - 1e-11 <= printed <= bound + 10**-places + 1e-11


@given(st.floats(1e-12, 1, exclude_max=True))
def test_a_printed_confidence_is_never_above_the_confidence(delta: float) -> None:
    assert float(formats.sure_of(delta).rstrip("%")) / 100 <= 1 - delta + 1e-11
    assert float(formats.may_fail(delta).rstrip("%")) / 100 >= delta - 1e-11


@pytest.mark.parametrize("bound", [0.2041, 0.2049])
def test_a_bound_that_a_line_ends_with_is_rounded_up(bound: float) -> None:
    drawn = figures.bound_by_size({"split": [SizeAndBound(64, bound, 0.0512)]}, chance=0.5)
    assert "split 20.5%" in drawn
    assert "test error 5.1%" in drawn


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1290, "1.3 kB"), (90_000, "90.0 kB"), (999_600, "1.0 MB"),
     (2.5e9, "2.5 GB"), (7e15, "7000 TB"), (None, "\N{EN DASH}")],
)  # fmt: skip
def test_data_sizes(number: float | None, text: str) -> None:
    assert formats.data_size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 ms"), (0.0996, "0.1 s"), (7.1, "7.1 s"), (41.2, "41 s"), (119.6, "2 min 0 s"),
     (7200, "2.0 h"), (None, "\N{EN DASH}")],
)  # fmt: skip
def test_durations(seconds: float | None, text: str) -> None:
    assert formats.duration(seconds) == text


@pytest.mark.parametrize("length", [3, 4, 10, 13])
def test_a_shortened_name_keeps_both_ends(length: int) -> None:
    short = formats.shorten("digits-client-0160", length)
    assert len(short) == length
    assert short.startswith("d")
    assert short.endswith("0")


def test_links_are_quoted() -> None:
    assert formats.relative_link("clients/a b?#/c.json") == "clients/a%20b%3F%23/c.json"
    assert math.prod(formats.relative_link(path) is None for path in (None, "", "/a")) == 1
