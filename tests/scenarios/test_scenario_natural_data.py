"""Scenarios `politeness` and `topics`, on tiny files of the same form."""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from tiny_text import BAD, GOOD, save_tiny_backbone

from fedcert.errors import SettingsError
from fedcert.randomness import keyed_generator
from fedcert.scenarios import Scenario, load_scenario
from fedcert.simulations.natural import NaturalScenario

DATA = Path(os.environ.get("FEDCERT_DATA", "/none"))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_backbone(tmp_path_factory.mktemp("backbone"), "bert"))


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return str(path.parent)


def _shortened(scenario: Scenario) -> Scenario:
    object.__setattr__(scenario._base.options, "max_length", 8)
    return scenario


def _sides(scenario: Scenario, support: int) -> tuple[set[bytes], set[bytes], set[bytes]]:
    """Return the inputs of upstream training, of support, and of tests."""

    def keys(inputs: np.ndarray) -> set[bytes]:
        return {x.encode() if isinstance(x, str) else x.tobytes() for x in inputs}

    upstream, new = scenario.upstream_clients, scenario.new_clients
    tests = [scenario.test_examples(client) for client in new]
    return (
        set().union(*(keys(scenario.training_examples(c).inputs) for c in upstream)),
        set().union(*(keys(scenario.support_examples(c, support).inputs) for c in new)),
        set().union(*(keys(t.inputs) for t in tests if t is not None)),
    )


def _disjoint(sides: tuple[set[bytes], set[bytes], set[bytes]]) -> bool:
    one, two, three = sides
    return bool(one and two and three) and not (one & two or one & three or two & three)


def _requests(tmp_path: Path) -> str:
    """Write 150 requests, each judged by five of twelve annotators."""
    generator = keyed_generator("tests/politeness")
    texts = [" ".join(generator.choice(GOOD + BAD, 6)) for _ in range(150)]
    rows = [
        (texts[item], int(generator.integers(0, 2)), f"a{rater:03d}", item)
        for item in range(150)
        for rater in generator.choice(12, 5, replace=False)
    ]
    return _write(tmp_path / "politeness.csv.gz", ["text", "label", "client", "item"], rows)


def test_politeness(tmp_path: Path, backbone: str) -> None:
    folder = _requests(tmp_path)
    options = {"new": 2, "smallest": 15, "smallest_new": 40, "new_size": 40}
    scenario = load_scenario("politeness", options | {"data": folder, "base": backbone})
    assert len(scenario.new_clients) == 2
    assert len(scenario.upstream_clients) == 10
    assert _disjoint(_sides(_shortened(scenario), 10))


def test_nobody_else_gets_what_is_in_the_reference_sample(
    tmp_path: Path, backbone: str
) -> None:
    folder = _requests(tmp_path)
    options = {"new": 2, "smallest": 15, "smallest_new": 30, "new_size": 40}
    options |= {"data": folder, "base": backbone}
    plain = load_scenario("politeness", options)
    assert plain.reference_examples() is None
    held = load_scenario("politeness", options | {"reference": 20})
    sample = held.reference_examples()
    assert sample is not None
    assert len(set(sample.inputs)) == len(sample) == 20
    kept = {text.encode() for text in sample.inputs}
    assert not kept & set().union(*_sides(_shortened(held), 8))
    with pytest.raises(SettingsError, match="there are 150 items for a reference sample"):
        load_scenario("politeness", options | {"reference": 151}).reference_examples()


def test_topics(tmp_path: Path, backbone: str) -> None:
    generator = keyed_generator("tests/topics")
    topics = ("business", "health", "sports")
    rows = [
        (" ".join(generator.choice(GOOD + BAD, 6)), topics[index % 3], language)
        for language in ("eng", "hau", "swa")
        for index in range(70)
    ]
    rows += rows[:5]
    folder = _write(tmp_path / "masakhanews.csv.gz", ["text", "label", "client"], rows)
    options = {"held_out": "swa", "client_size": 30, "data": folder, "base": backbone}
    scenario = load_scenario("topics", options)
    assert set(scenario.new_clients) == {"swa-00", "swa-01"}
    assert {c[:3] for c in scenario.upstream_clients} == {"eng", "hau"}
    assert _disjoint(_sides(_shortened(scenario), 5))
    with pytest.raises(SettingsError, match="no language 'fra'; choose among eng, hau, swa"):
        _ = load_scenario("topics", options | {"held_out": "fra"}).new_clients
    half = options | {"held_out": "half", "concentration": 0.2}
    scenario = load_scenario("topics", half)
    assert set(scenario.new_clients) <= {"eng-01", "hau-01", "swa-01"}
    assert {client[4:] for client in scenario.upstream_clients} == {"00"}
    train = [scenario.training_examples(client) for client in scenario.upstream_clients]
    # Dealt out evenly, each topic would be a third.
    assert max(np.bincount(part.labels).max() / len(part) for part in train) > 0.45


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("politeness", "politeness.csv.gz"),
        ("topics", "masakhanews.csv.gz"),
    ],
)
def test_default_sizes_fit_the_real_data(name: str, file: str) -> None:
    if not (DATA / file).is_file():
        pytest.skip(f"FEDCERT_DATA names no folder with {file}")
    scenario = load_scenario(name, {})
    assert isinstance(scenario, NaturalScenario)
    assert len(scenario.upstream_clients) >= 100
    assert len(scenario.new_clients) >= 15
    for client in scenario.new_clients:
        assert scenario._for_support[scenario._part(1, client)].sum() >= 64
