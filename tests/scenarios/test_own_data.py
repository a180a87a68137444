"""Scenario `own-data`: what a server knows when the examples are on the nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_models import Family
from tiny_text import save_tiny_backbone, tiny_tokenizer

from fedcert.data import ImageInputs, TextInputs
from fedcert.errors import DataError, SettingsError
from fedcert.models import load_base_model
from fedcert.scenarios import Scenario, load_scenario
from fedcert.settings import RunSettings
from fedcert.simulations.runners.flower_internals import LocalGrid
from fedcert.strategies.serving import serve


def _scenario(**options: Any) -> Scenario:
    return load_scenario("own-data", options)


def test_images(vit: Family) -> None:
    scenario = _scenario(
        labels="other,mine", base=str(vit.folder), image=" 1 x 8x8", low=0, high=16
    )
    assert scenario.labels == ("other", "mine")
    assert scenario.inputs == ImageInputs(1, 8, 8, 0.0, 16.0)
    base = load_base_model(str(scenario.base_model()), num_labels=2)
    # A zero head, and otherwise the model that was named.
    assert not base.model.get_submodule(base.layout.head).weight.any()
    assert base.layout == vit.base.layout
    assert scenario.upstream_clients == scenario.new_clients == ()


def test_texts_and_three_labels_given_as_a_list(tmp_path: Path) -> None:
    folder = save_tiny_backbone(tmp_path, "bert")
    tiny_tokenizer().save_pretrained(folder)
    scenario = _scenario(labels=["a", "b", "c"], base=str(folder), max_length=8)
    assert isinstance(scenario.inputs, TextInputs)
    assert load_base_model(str(scenario.base_model()), num_labels=3).num_labels == 3


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "labels must name two classes or more, each once, not ''"),
        ({"labels": "a"}, "two classes or more"),
        ({"labels": "a,a"}, "each once"),
        ({"labels": "a,,b"}, "labels must name"),
        ({"labels": "a,b", "image": "1x2x2"}, "images need the option `base`"),
        ({"labels": "a,b", "image": "2x2", "base": "x"}, "image must be channels x height"),
        (
            {"labels": "a,b", "image": "1x2x2", "base": "x", "low": 1, "high": 1},
            "low be less than high",
        ),
        ({"labels": "a,b", "upstream": 3}, "does not take these options"),
    ],
)
def test_options_that_do_not_go(options: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        _scenario(**options)


def test_it_has_no_examples(vit: Family) -> None:
    scenario = _scenario(labels="a,b", base=str(vit.folder), image="1x8x8")
    with pytest.raises(DataError, match="they are on its node, which needs a data-path"):
        scenario.training_examples("someone")
    with pytest.raises(DataError, match="no examples of 'someone'"):
        scenario.support_examples("someone", 3)
    assert scenario.test_examples("someone") is None


def test_a_server_has_to_be_told_how_many_nodes_to_wait_for(
    vit: Family, tmp_path: Path
) -> None:
    settings = RunSettings.from_flat(
        {
            "scenario.name": "own-data",
            "scenario.options.labels": "a,b",
            "scenario.options.base": str(vit.folder),
            "scenario.options.image": "1x8x8",
        }
    )
    grid = LocalGrid(lambda *_: None, nodes=1)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=r"set server\.nodes to the number of nodes"):
        serve(grid, settings, output=tmp_path)
