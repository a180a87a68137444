"""The options of a table that change the base model: label phrases and quantization."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_text import BAD, GOOD, save_tiny_backbone, tiny_tokenizer

from fedcert.data import PromptInputs
from fedcert.errors import SettingsError
from fedcert.models import LabelScorer, load_base_model
from fedcert.models.int8 import Int8Linear
from fedcert.scenarios import Scenario, load_scenario
from fedcert.settings import RunSettings


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "rows.csv"
    lines = [f"{w},{'fine' if w in GOOD else 'rude'},someone" for w in [*GOOD, *BAD]]
    path.write_text("\n".join(["input,label,client", *lines]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = save_tiny_backbone(tmp_path_factory.mktemp("lm"), "llama")
    tiny_tokenizer(words=[*GOOD[:10], *BAD[:10], "fine", "rude", "is", "so"]).save_pretrained(
        folder
    )
    return str(folder)


def _scenario(table: Path, base: str, **options: Any) -> Scenario:
    options = {"source": str(table), "base": base, "max_length": 8, "quantization": "int8"} | (
        options
    )
    settings = RunSettings.from_mapping({"scenario": {"name": "table", "options": options}})
    return load_scenario(settings.scenario.name, settings.scenario.options)


def test_label_phrases_of_a_quantized_language_model(table: Path, language_model: str) -> None:
    phrases = {"rude": "so rude", "fine": "fine"}
    scenario = _scenario(table, language_model, template="{text} is", phrases=phrases)
    base = load_base_model(str(scenario.base_model()), num_labels=2)
    assert isinstance(base.model, LabelScorer)
    assert any(isinstance(module, Int8Linear) for module in base.model.modules())
    spec = scenario.inputs.bound_to(base)
    assert isinstance(spec, PromptInputs)
    tokens = [spec.encode(["x"])["input_ids"][0].tolist()[-1]]
    assert (
        tokens
        == tiny_tokenizer(words=[*GOOD[:10], *BAD[:10], "fine", "rude", "is"])("is")[
            "input_ids"
        ]
    )
    # Labels come in order, whatever the order of the option.
    assert scenario.labels == ("fine", "rude")
    assert base.model.label_weights.argmax(dim=1).tolist() == [0, 1, 1]
    with torch.no_grad():
        assert base.model(**spec.encode(list(GOOD[:3]))).logits.shape == (3, 2)
    assert _scenario(table, language_model, template="so {text} is").inputs != scenario.inputs


def test_an_encoder_in_eight_bits(table: Path, tmp_path: Path) -> None:
    source = str(save_tiny_backbone(tmp_path, "bert"))
    base = load_base_model(str(_scenario(table, source).base_model()), num_labels=2)
    assert any(isinstance(module, Int8Linear) for module in base.model.modules())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"phrases": {"fine": "a", "rude": "b"}}, "phrases need a template"),
        ({"template": "{text}", "phrases": {"fine": "a"}}, "a phrase for each of the labels"),
        ({"template": "{text}", "base": ""}, "a template needs the option `base`"),
    ],
)
def test_options_that_do_not_fit(table: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        _ = _scenario(table, options.pop("base", "model"), **options).inputs


def test_search_settings() -> None:
    settings = RunSettings.from_flat({"search.precision": "bfloat16", "search.compile": True})
    assert settings.search.precision == "bfloat16"
    assert settings.search.compile
    with pytest.raises(SettingsError, match=r"search\.precision"):
        RunSettings.from_flat({"search.precision": "float16"})
