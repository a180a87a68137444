"""Records say by which code their figures were measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fedcert.simulations.benchmarks import everything, federations, provenance, publishing
from fedcert.simulations.benchmarks.federations import remembered


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEDCERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(provenance, "_kept", [])


def _at(monkeypatch: pytest.MonkeyPatch, commit: str) -> None:
    for module in (federations, provenance):
        monkeypatch.setattr(module, "present_code", lambda: commit)


def test_figures_from_the_cache_keep_their_commit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _at(monkeypatch, "aaa")
    remembered("test", "first", lambda: 1)
    assert provenance.provenance()["code"] == ["aaa"]
    _at(monkeypatch, "bbb")
    remembered("test", "first", lambda: pytest.fail("it is in the cache"))
    remembered("test", "second", lambda: 2)
    publishing.publish("test", {"table": []}, {}, folder=tmp_path)
    record = json.loads((tmp_path / "test.json").read_text())
    assert record["measured"]["code"] == ["aaa", "bbb"]
    assert record["measured"]["seconds"] >= 0


def test_what_was_kept_without_a_commit_is_of_unknown_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _at(monkeypatch, "aaa")
    remembered("test", "first", lambda: 1)
    for file in provenance_files():
        file.unlink()
    remembered("test", "first", lambda: pytest.fail("it is in the cache"))
    assert provenance.provenance()["code"] == ["aaa", "unknown"]


def test_changed_files_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"rev-parse": "abc", "status": " M fedcert/x.py"}
    monkeypatch.setattr(provenance, "_git", lambda command, *_rest: answers[command])
    provenance.present_code.cache_clear()
    assert provenance.present_code() == "abc+"
    provenance.present_code.cache_clear()


def provenance_files() -> list[Path]:
    return list(federations.cache_folder().rglob("*.origin.json"))


def test_parts_of_an_earlier_record_keep_their_commits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(publishing, "results_file", lambda name: tmp_path / f"{name}.json")
    _at(monkeypatch, "aaa")
    publishing.publish("test", {"one": 1}, {}, folder=tmp_path)
    _at(monkeypatch, "bbb")
    record = publishing.kept_record("test") | {"two": 2}
    publishing.publish("test", record, {}, folder=tmp_path)
    assert publishing.record_of("test")["measured"]["code"] == ["aaa", "bbb"]


def test_a_record_whose_parts_were_kept_has_the_time_of_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(publishing, "results_file", lambda name: tmp_path / f"{name}.json")
    publishing.publish("test", {}, {}, folder=tmp_path, seconds=1e6)
    publishing.publish("test", publishing.kept_record("test"), {}, folder=tmp_path)
    assert publishing.record_of("test")["measured"]["seconds"] >= 1e6


def test_every_benchmark_has_a_target_and_a_page() -> None:
    root = Path(everything.__file__).resolve().parents[2]
    makefile = (root / "Makefile").read_text()
    targets = {
        line.split(":")[0] for line in makefile.splitlines() if line.startswith("bench-")
    }
    listed = {f"bench-{one.name}" for one in everything.BENCHMARKS}
    assert targets == listed | {"bench-all"}


def test_only_figures_of_the_code_that_is_here_are_up_to_date(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    differing = {"aaa": "", "bbb": "fedcert/x.py"}
    monkeypatch.setattr(provenance, "_git", lambda *words: differing[words[2]])
    measured: dict[str, list[str]] = {}
    monkeypatch.setattr(everything, "record_of", lambda _name: {"measured": measured})
    one = everything.BENCHMARKS[0]
    assert not one.is_current
    for codes, current in (
        (["aaa"], True),
        (["aaa", "bbb"], False),
        (["aaa+"], False),
        (["unknown"], False),
    ):
        measured["code"] = codes
        assert one.is_current == current


def test_figures_rest_on_what_their_benchmark_imports_and_on_no_other() -> None:
    makefile = (Path(everything.__file__).parents[2] / "Makefile").read_text()
    for one in everything.BENCHMARKS:
        (module,) = re.findall(
            rf"^bench-{one.name}:.*\n.*benchmarks\.(\w+)$", makefile, flags=re.MULTILINE
        )
        assert f":!simulations/benchmarks/{module}.py" not in one.sources
    launched = provenance.sources_of("launched")
    assert {"fedcert", ":!simulations/benchmarks/prior.py"} <= {*launched}
    assert ":!simulations/benchmarks/launched_page.py" in launched  # it renders
    assert ":!simulations/benchmarks/federations.py" not in launched
    # Of a package as well, and what its modules import.
    assert ":!simulations/benchmarks/recipes/known_best.py" not in launched
    assert ":!simulations/benchmarks/comparison/mezo.py" not in provenance.sources_of("methods")
