"""The page as a whole: self-contained, well-formed, safe, and the same every time."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

from fedcert.errors import FedcertError
from fedcert.reports import render_report, write_report

VOID = {"meta", "br"}


class Page(HTMLParser):
    """Collects what the tests look at, and fails on tags that do not balance."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += f"{data} "

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


def words(results: dict[str, Any]) -> str:
    return " ".join(Page(render_report(results)).text.split())


def test_page_is_well_formed_and_shows_every_figure(results: dict[str, Any]) -> None:
    page = Page(render_report(results))
    assert page.tags[:2] == ["html", "head"]
    # Three figures in two widths each, and four that fit both.
    assert page.tags.count("svg") == 10
    assert page.tags.count("h1") == 1


def test_page_refers_to_nothing_outside_itself(results: dict[str, Any]) -> None:
    text = render_report(results)
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "image", "object"} & set(page.tags)
    assert page.values("src") == []
    assert page.values("xlink:href") == []
    for target in page.values("href"):
        assert target.startswith(("#", "clients/"))
    assert "url(" not in text
    assert "@import" not in text
    assert "://" not in re.sub(r'xmlns="[^"]*"', "", text)
    assert any("default-src 'none'" in policy for policy in page.values("content"))


def test_ids_are_unique_and_every_reference_resolves(results: dict[str, Any]) -> None:
    page = Page(render_report(results))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {href[1:] for href in page.values("href") if href.startswith("#")} <= set(ids)


def test_untrusted_text_stays_text(results: dict[str, Any]) -> None:
    attack = '"><script>alert(1)</script>&amp;$x^2$'
    results["clients"][0].update(client=attack, recipe=attack, certificate=attack)
    results["scenario"] = results["description"] = results["command"] = attack
    results["prior"]["choice"] = results["statement"] = attack
    results["failures"][0]["cause"] = results["timings"][0]["phase"] = attack
    results["bound_by_n"][0]["recipe"] = results["profiles"][0]["prior"] = attack
    results["digests"] = results["versions"] = {attack: attack}
    page = Page(render_report(results))
    assert "script" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert attack in page.text


def test_invisible_characters_of_a_name_are_replaced(results: dict[str, Any]) -> None:
    results["clients"][0]["client"] = "a\x00b\ud800c\u202ed\ne"
    assert "a\ufffdb\ufffdc\ufffdd e" in Page(render_report(results)).text


def test_only_paths_inside_the_run_become_links(results: dict[str, Any]) -> None:
    paths = [
        "//host/x",
        "/etc/passwd",
        "../../x",
        "a\\b",
        "javascript:alert(1)",
        "http://h/x",
    ]
    results["clients"] = results["clients"][: len(paths)]
    for client, path in zip(results["clients"], paths, strict=True):
        client["certificate"] = path
    links = [link for link in Page(render_report(results)).values("href") if link[0] != "#"]
    # With its colon quoted, a scheme is only an odd name of a file in the run folder.
    assert links == ["javascript%3Aalert%281%29", "http%3A/h/x"]


def test_same_results_give_the_same_bytes_in_any_process(results: dict[str, Any]) -> None:
    here = render_report(results)
    program = (
        "import sys, json, hashlib\n"
        "from fedcert.reports import render_report\n"
        "page = render_report(json.load(sys.stdin))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "print(hashlib.sha256(page.encode()).hexdigest())\n"
    )
    there = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(results),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert there.stdout.strip() == hashlib.sha256(here.encode()).hexdigest()
    assert here == render_report(results)


def test_the_users_matplotlib_settings_neither_leak_in_nor_change(
    results: dict[str, Any],
) -> None:
    expected = render_report(results)
    with mpl.rc_context({"font.size": 30, "axes.grid": True, "text.parse_math": True}):
        before = dict(mpl.rcParams)
        assert render_report(results) == expected
        assert dict(mpl.rcParams) == before


def test_headline_figures(results: dict[str, Any]) -> None:
    rows = [(0.2, 0.1), (0.4, 0.3), (0.6, None)]
    results["clients"] = [
        {"client": f"c{i}", "n": 16 * (i + 1), "bound": bound, "test_error": error}
        for i, (bound, error) in enumerate(rows)
    ]
    text = words(results)
    assert "New clients 3 with 16 to 48 labeled examples" in text
    assert "Mean certificate 40.0% mean upper bound on the error, each at 95%" in text
    assert "Mean test error 20.0% ± 20.0%, on unused test examples of 2 clients" in text
    assert "Non-vacuous 2 of 3 certificates below chance, 50%" in text


def test_chance_follows_from_the_labels(results: dict[str, Any]) -> None:
    del results["chance"]
    results["labels"] = ["a", "b", "c"]
    assert "certificates below chance, 66.7%" in words(results)


def test_the_table_says_what_was_verified(results: dict[str, Any]) -> None:
    assert "The run verified every certificate." in words(results)
    results["clients"][0]["verified"] = None
    assert "The run did not check 1 certificate." in words(results)


def test_certificates_are_rounded_up(results: dict[str, Any]) -> None:
    results["clients"] = [{"client": "c", "n": 16, "bound": 0.20001, "local_bound": 0.30001}]
    results["bound_by_n"] = [{"recipe": "union", "n": 16, "bound": 0.20001}]
    planned = {"n": 16, "recipe": "union", "clients": 4}
    results["plan"] = [planned | dict.fromkeys(("mean", "low", "high", "tail"), 0.20001)]
    results["delta"] = 0.0004
    results["profiles"] = []
    page = words(results)
    assert page.count("20.1%") >= 9
    assert "20.0%" not in page
    assert "30.1%" in page
    assert "each at 99.9% confidence" in page


def test_problems_stand_at_the_top(results: dict[str, Any]) -> None:
    results["prior"]["nearest"]["passed"] = False
    results["clients"][0]["verified"] = False
    for client in results["clients"][:2]:
        client.update(bound=0.1, test_error=0.2)
    top = words(results).split("What is certified")[0]
    assert "failed the memorization gate" in top
    assert "1 certificate did not verify." in top
    assert "For 2 clients of 8 the test error exceeds the certificate" in top
    assert "3 clients failed during the run" in top


def test_failures_are_listed_with_their_counts(results: dict[str, Any]) -> None:
    assert "train loss became infinite at step 12 3 digits-0001, digits-0004" in words(results)


MISSING = {
    "bound_by_n": "not compared across numbers of examples",
    "prior": "recorded nothing about its prior",
    "profiles": "compared no priors",
    "communication": "recorded no communication",
    "timings": "recorded no timings",
    "failures": "No client failed",
}


@pytest.mark.parametrize("key", MISSING)
def test_a_missing_section_says_so(results: dict[str, Any], key: str) -> None:
    del results[key]
    text = words(results)
    assert [missing for missing, sentence in MISSING.items() if sentence in text] == [key]


def test_a_warm_start_says_what_it_promises(results: dict[str, Any]) -> None:
    results["warm_start"] = {
        "before": "b" * 64,
        "after": "a" * 64,
        "rounds": [{"clients": 7}],
        "clients": 7,
        "privacy": None,
    }
    plain = words(results)
    assert "7 clients improved the base model in 1 round" in plain
    results["warm_start"]["privacy"] = {"epsilon": 8.0, "words": "Next to nothing is learned."}
    assert "Next to nothing is learned." not in plain
    assert "Next to nothing is learned." in words(results)


def test_null_sections_count_as_missing(results: dict[str, Any]) -> None:
    text = words(results | dict.fromkeys(MISSING))
    assert all(sentence in text for sentence in MISSING.values())


def test_the_least_that_can_be_reported() -> None:
    text = words({"format": "fedcert.results/1", "scenario": "least", "clients": []})
    for sentence in (*MISSING.values(), "No new client received", "recorded no provenance"):
        assert sentence in text


def test_parts_of_the_prior_may_be_missing(results: dict[str, Any]) -> None:
    results["prior"] = {"kind": "pool", "projection": None, "nearest": {"samples": None}}
    text = words(results)
    assert "recorded no projection" in text
    assert "memorization was not measured" in text


def test_a_run_without_test_data_says_so(results: dict[str, Any]) -> None:
    for client in results["clients"]:
        client["test_error"] = None
    text = words(results)
    assert "Mean test error \N{EN DASH} no test data" in text
    assert "The run had no test data" in text


def test_many_clients_stay_readable(make_results: Callable[..., dict[str, Any]]) -> None:
    text = render_report(make_results(clients=1000))
    assert "Of 1,000 clients, 400 evenly spaced ones are drawn." in text
    assert "Show all 1,000 clients" in text
    assert len(text) < 2_000_000


def test_unknown_keys_are_ignored(results: dict[str, Any]) -> None:
    expected = render_report(results)
    results["news"] = results["clients"][0]["news"] = results["prior"]["news"] = [1]
    assert render_report(results) == expected


@pytest.mark.parametrize("key", ["format", "scenario", "clients"])
def test_a_missing_required_key_is_named(results: dict[str, Any], key: str) -> None:
    del results[key]
    with pytest.raises(FedcertError, match=f"lack the required key '{key}': pass all of"):
        render_report(results)


def test_another_format_is_refused(results: dict[str, Any]) -> None:
    results["format"] = "fedcert.results/2"
    with pytest.raises(FedcertError, match=r"'fedcert.results/2', but .* 'fedcert.results/1'"):
        render_report(results)


def test_something_else_than_a_dictionary_is_refused() -> None:
    with pytest.raises(FedcertError, match=r"must be a dictionary .* not a list"):
        render_report([])  # type: ignore[arg-type]


@pytest.mark.parametrize("bound", [None, "much", float("nan"), 1.5, -0.1])
def test_a_bad_value_is_named_by_its_place(results: dict[str, Any], bound: object) -> None:
    results["clients"][4]["bound"] = bound
    with pytest.raises(FedcertError, match=r"bad value at 'clients\.4\.bound': Input should"):
        render_report(results)


def test_write_report_replaces_the_file_only_on_success(
    results: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "run" / "report.html"
    write_report(results, path)
    assert path.read_text(encoding="utf-8") == render_report(results)
    before = path.read_bytes()
    with pytest.raises(FedcertError):
        write_report({**results, "format": "other"}, path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_errors_by_label_are_added_up_beside_the_data(results: dict[str, Any]) -> None:
    results["data"] = {"labels": {"new clients": {"other": 30, "mine": 10}}}
    assert "errors counted" not in words(results)
    results["clients"][0]["errors_by_label"] = {"mine": [2, 5]}
    results["clients"][1]["errors_by_label"] = {"mine": [1, 4], "other": [0, 3]}
    results["clients"][2]["errors_by_label"] = None
    page = words(results)
    assert "mine 10 3 of 9" in page
    assert "other 30 0 of 3" in page
    assert "which nothing certifies for a single label" in page


def test_promises_are_counted_over_the_clients_that_hold_them(results: dict[str, Any]) -> None:
    assert "What else the certificates promise" not in words(results)
    for place, client in enumerate(results["clients"]):
        wrong, given = (0.2, True) if place % 2 else (0.4, False)
        client["promises"] = [
            {"asked": "few <wrong>", "given": given, "figures": {"wrong at most": wrong}},
            {"asked": "true at once", "given": True},
        ]
    clients = len(results["clients"])
    mean = (0.4 * ((clients + 1) // 2) + 0.2 * (clients // 2)) / clients
    shown = words(results)
    assert f"few <wrong> {clients // 2} {clients} wrong at most {mean:.3f}" in shown
    assert f"true at once {clients} {clients}" in shown


def test_the_statement_holds_no_long_digests(results: dict[str, Any]) -> None:
    results["statement"] = f"seen by the server with the public key {'ab' * 32}, once"
    page = words(results)
    assert f"public key {'ab' * 6}…, once" in page
    assert "ab" * 7 not in page
