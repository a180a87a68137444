"""Scenario `digits`: disjoint data, unseen tasks, reproducible draws, a base that helps."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from fedcert.adapters import AdapterSpace, FinetuneSettings, Task, finetune
from fedcert.data import Examples
from fedcert.errors import DataError, SettingsError
from fedcert.models import load_base_model
from fedcert.scenarios import Scenario, load_scenario
from fedcert.simulations.scenarios.digits import Digits
from fedcert.simulations.scenarios.digits_base import Pretraining, pretrained_base


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits(upstream=24, new=8)


def _rows(digits: Digits, examples: Examples) -> set[int]:
    """Find the images' numbers in the data set; no image occurs twice."""
    numbers = {image.tobytes(): row for row, image in enumerate(digits._images[0])}
    return {numbers[image.tobytes()] for image in examples.inputs}


def test_the_splits_cover_all_images_once(digits: Digits) -> None:
    splits = digits._splits
    rows = np.concatenate(list(splits.values()))
    assert sorted(rows.tolist()) == list(range(1797))
    assert {name: len(part) for name, part in splits.items()} == {
        "pretraining": 700,
        "training": 400,
        "support": 300,
        "test": 397,
    }


def test_clients_draw_from_their_own_splits(digits: Digits) -> None:
    splits = {name: set(part.tolist()) for name, part in digits._splits.items()}
    for client in digits.upstream_clients:
        assert _rows(digits, digits.training_examples(client)) <= splits["training"]
    for client in digits.new_clients:
        assert _rows(digits, digits.support_examples(client, 256)) <= splits["support"]
        assert _rows(digits, digits.test_examples(client)) == splits["test"]


def test_no_image_is_drawn_twice(digits: Digits) -> None:
    training = digits.training_examples(digits.upstream_clients[0])
    support = digits.support_examples(digits.new_clients[0], 300)
    assert len(_rows(digits, training)) == len(training) == 100
    assert len(_rows(digits, support)) == len(support) == 300


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("upstream", "new"), [(24, 8), (128, 20), (300, 126)])
def test_tasks_of_new_clients_are_unseen_upstream(upstream: int, new: int, seed: int) -> None:
    digits = Digits(upstream=upstream, new=new, seed=seed)
    seen = {digits.mine(client) for client in digits.upstream_clients}
    unseen = {digits.mine(client) for client in digits.new_clients}
    assert not seen & unseen
    assert len(seen) == min(upstream, 252 - new)
    assert len(unseen) == new
    assert seen | unseen <= set(combinations(range(10), 5))
    clients = digits.upstream_clients + digits.new_clients
    assert len(set(clients)) == upstream + new


def test_labels_follow_the_client_s_own_digits(digits: Digits) -> None:
    client = digits.new_clients[3]
    support = digits.support_examples(client, 60)
    classes = digits._images[1][[*_in_order(digits, support)]]
    expected = [int(digit in digits.mine(client)) for digit in classes]
    assert support.labels.tolist() == expected
    assert 0.2 < support.labels.mean() < 0.8


def _in_order(digits: Digits, examples: Examples) -> list[int]:
    numbers = {image.tobytes(): row for row, image in enumerate(digits._images[0])}
    return [numbers[image.tobytes()] for image in examples.inputs]


def test_support_sets_nest(digits: Digits) -> None:
    client = digits.new_clients[0]
    whole = digits.support_examples(client, 256)
    for size in (1, 16, 255):
        part = digits.support_examples(client, size)
        np.testing.assert_array_equal(part.inputs, whole.inputs[:size])
        np.testing.assert_array_equal(part.labels, whole.labels[:size])


def _everything(digits: Digits) -> list[np.ndarray]:
    parts = [digits.training_examples(client) for client in digits.upstream_clients]
    parts += [digits.support_examples(client, 20) for client in digits.new_clients]
    parts += [digits.test_examples(client) for client in digits.new_clients]
    return [array for part in parts for array in (part.inputs, part.labels)]


def test_two_instances_agree_and_two_seeds_do_not(digits: Digits) -> None:
    again, other = Digits(upstream=24, new=8), Digits(upstream=24, new=8, seed=1)
    assert again.new_clients == digits.new_clients
    for ours, theirs in zip(_everything(again), _everything(digits), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    pairs = zip(_everything(other), _everything(digits), strict=True)
    assert not any(np.array_equal(ours, theirs) for ours, theirs in pairs)


def test_clients_draw_differently(digits: Digits) -> None:
    one, two = (digits.support_examples(client, 50) for client in digits.new_clients[:2])
    assert _in_order(digits, one) != _in_order(digits, two)


@pytest.mark.parametrize("size", [0, -1, 301])
def test_a_support_set_that_cannot_be_had_is_refused(digits: Digits, size: int) -> None:
    with pytest.raises(DataError, match=f"1 to 300 support examples, not {size}"):
        digits.support_examples(digits.new_clients[0], size)


def test_an_unknown_client_is_refused(digits: Digits) -> None:
    with pytest.raises(DataError, match="digits has no client 'nobody'"):
        digits.training_examples("nobody")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"upstream": 0}, "upstream must be at least 1, and new 1 to 126"),
        ({"new": 0}, "new 1 to 126"),
        ({"new": 127}, "new 1 to 126"),
        ({"training_size": 1}, "training_size must be 2 to 400"),
        ({"training_size": 401}, "training_size must be 2 to 400"),
        ({"color": "red"}, "'digits' does not take these options: .*'color'"),
        (
            {"upstream": "many"},
            "'digits': the option 'upstream' must be a whole number",
        ),
        ({"upstream": 12.5}, "'upstream' must be a whole number, not 12.5"),
        ({"upstream": True}, "'upstream' must be a whole number, not True"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        load_scenario("digits", options)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("letters", "there is no scenario 'letters'; there is digits, intents"),
        ("no_module:Scenario", "Python finds no module 'no_module'; .*PYTHONPATH"),
        ("json:JSONDecoder", "the module json defines no class derived from"),
        (
            "digits_base",
            "the module fedcert.simulations.scenarios.digits_base defines no class",
        ),
        (
            "fedcert.simulations.scenarios.digits:Digit",
            r"the module has fedcert\.simulations\..*digits:Digits; did you mean 'Digits'",
        ),
        ("digit", "topics, or your own as module:Class; did you mean 'digits'"),
        ("named_intent", "did you mean 'named-intents'"),
        ("", "there is no scenario ''"),
    ],
)
def test_an_unknown_scenario_is_refused(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        load_scenario(name, {})


@pytest.mark.parametrize("name", ["digits", "fedcert.simulations.scenarios.digits:Digits"])
def test_a_scenario_is_found_by_name(name: str) -> None:
    scenario = load_scenario(name, {"upstream": 3})
    assert isinstance(scenario, Scenario)
    assert len(scenario.upstream_clients) == 3


def test_a_missing_library_is_named(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wants_more.py").write_text("import a_library_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    text = "needs the package 'a_library_that_is_not_there'; install it"
    with pytest.raises(SettingsError, match=text):
        load_scenario("wants_more:Scenario", {})


@pytest.mark.parametrize("epochs", [30, pytest.param(60, marks=pytest.mark.slow)])
def test_the_base_model_makes_tasks_learnable(
    digits: Digits, epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was pretrained on other images and starts everyone at a zero head."""
    monkeypatch.setitem(pretrained_base.__kwdefaults__, "settings", Pretraining(epochs=epochs))
    steps: list[str] = []
    folder = digits.base_model(on_step=steps.append)
    assert steps == ["pretraining the base model"]
    assert digits.base_model(on_step=steps.append) == folder
    assert len(steps) == 1  # the second time it was there
    base = load_base_model(str(folder), num_labels=2)
    assert not any(p.any() for p in base.model.classifier.parameters())
    model = Task(base, AdapterSpace.of(base, rank=4), digits.inputs).model()
    errors = []
    for client in digits.upstream_clients[:3]:
        trained = finetune(
            model, digits.training_examples(client), seed=0, settings=FinetuneSettings()
        )
        test = digits.test_examples(client)
        with torch.no_grad():
            prepared = model.prepare(digits.inputs.encode(test.inputs))
            logits = model.logits(prepared, torch.from_numpy(trained.vector)[None])[0]
        errors.append(np.mean(logits.argmax(-1).numpy() != test.labels))
    assert np.mean(errors) < 0.12


def test_the_whole_pretraining_is_the_default() -> None:
    assert Pretraining().epochs == 60
    assert pretrained_base.__kwdefaults__["settings"] == Pretraining()


def test_no_image_of_a_planner_trains_anybody_else() -> None:
    digits = Digits(upstream=9, new=2, planners=3)
    assert digits.planning_clients == digits.upstream_clients[-3:]
    seen = {
        client: {*digits.training_examples(client).input_digests("a test")}
        for client in digits.upstream_clients
    }
    planners = set().union(*(seen[client] for client in digits.planning_clients))
    others = set().union(*(seen[client] for client in digits.upstream_clients[:-3]))
    assert planners
    assert not planners & others
    assert Digits(upstream=9, new=2).planning_clients == ()
    with pytest.raises(SettingsError, match="cannot be planners"):
        Digits(upstream=9, new=2, planners=9)
