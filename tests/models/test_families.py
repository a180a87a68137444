"""Families that are loaded at all, and what a folder that makes no sense says."""

from __future__ import annotations

import ast
import json
import re
import shutil
from pathlib import Path
from typing import Any, NoReturn

import huggingface_hub
import pytest
import transformers
from tiny_models import Family
from tiny_text import save_tiny_backbone, tiny_tokenizer

import fedcert
from fedcert.data import TextInputs
from fedcert.errors import ModelError
from fedcert.models import MODEL_TYPES, load_base_model, load_tokenizer, with_task_head

LIGHT_GLUE = {
    "model_type": "lightglue",
    "trust_remote_code": True,
    "keypoint_detector_config": {"model_type": "evil", "trust_remote_code": True},
}
LABELS = ["bad", "good"]


@pytest.fixture
def _nothing_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(*_args: object, **_options: object) -> NoReturn:
        raise AssertionError("transformers was asked for the configuration")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", loaded)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", loaded)


def _folder(path: Path, config: object) -> str:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return str(path)


@pytest.mark.usefixtures("_nothing_loads")
@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LIGHT_GLUE, "does not load the family 'lightglue'.*MODEL_TYPES.add"),
        ({"model_type": "evil", "auto_map": {}}, "does not load the family 'evil'"),
        ({}, "names no model_type"),
        ({"model_type": ["bert"]}, "names no model_type"),
        ([], "names no model_type"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_other_families_are_refused_before_transformers_is_asked(
    tmp_path: Path, config: object, message: str
) -> None:
    folder = _folder(tmp_path, config)
    for load in (
        lambda: load_base_model(folder, num_labels=2),
        lambda: load_tokenizer(folder),
        lambda: with_task_head(folder, LABELS),
    ):
        with pytest.raises(ModelError, match=message):
            load()


def test_no_function_asks_transformers_without_looking_first() -> None:
    root = Path(fedcert.__file__).parents[1]
    asking = []
    for folder in ("fedcert", "clients", "strategies", "simulations"):
        for path in sorted((root / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef):
                    words = ast.unparse(node)
                    if re.search(r"Auto(Config|Tokenizer)\.from_pretrained", words):
                        first = words.find("check_family(")
                        assert 0 <= first < words.find(".from_pretrained"), (path, node.name)
                        asking.append(node.name)
    assert {"pretrained", "read_tokenizer"} <= set(asking)


@pytest.mark.usefixtures("_nothing_loads")
def test_so_are_they_on_the_hub_where_nothing_else_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []

    def download(*args: object, **_options: object) -> str:
        asked.append(args)
        return str(Path(_folder(tmp_path, LIGHT_GLUE)) / "config.json")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(ModelError, match="does not load the family 'lightglue'"):
        load_base_model("some/model", num_labels=2)
    with pytest.raises(ModelError, match="does not load the family 'lightglue'"):
        with_task_head("some/model", LABELS)
    assert asked == [("some/model", "config.json")] * 2


def test_the_commit_that_was_looked_at_is_the_one_that_is_loaded(
    bert: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789" * 4
    seen: list[object] = []
    snapshot = tmp_path / "snapshots" / commit
    shutil.copytree(bert.folder, snapshot)

    def load(_name: str, **options: object) -> NoReturn:
        seen.append(options["revision"])
        raise OSError("enough seen")

    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda *_a, **_k: str(snapshot / "config.json")
    )
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", load)
    with pytest.raises(ModelError, match="enough seen"):
        load_base_model("some/model", num_labels=2, revision="main")
    assert seen == [commit]


def test_without_a_network_the_hub_says_so() -> None:
    with pytest.raises(ModelError, match="no such folder here, and the hub does not give it"):
        load_base_model("nobody/nothing", num_labels=2)


def test_a_user_can_allow_a_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedcert.models.families.MODEL_TYPES", MODEL_TYPES | {"lightglue2"})
    folder = _folder(tmp_path, {"model_type": "lightglue2"})
    with pytest.raises(ModelError, match="cannot load a base model from the folder"):
        load_base_model(folder, num_labels=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pad_token_id": 28}, "pads with token 28, but has embeddings for the tokens 0 to 27"),
        ({"hidden_size": "wide"}, "cannot load a base model"),
        ({"num_attention_heads": 0}, "cannot load a base model"),
        ({"num_attention_heads": 3}, "cannot load a base model"),
        ({"hidden_act": "no such thing"}, "cannot load a base model"),
        ({"num_hidden_layers": -1}, "cannot load a base model|has no list of equal layers"),
        ({"vocab_size": None}, "cannot load a base model"),
        ({"rope_parameters": {"rope_type": "unheard"}}, "cannot load a base model"),
    ],
    ids=str,
)
def test_a_configuration_that_makes_no_sense_is_one_line(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    source = save_tiny_backbone(tmp_path / "source", "llama")
    folder = with_task_head(source, LABELS, tmp_path / "base")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match=message):
        load_base_model(str(folder), num_labels=2)


def test_a_tokenizer_with_more_words_than_the_model_is_refused(tmp_path: Path) -> None:
    folder = with_task_head(save_tiny_backbone(tmp_path / "a", "bert"), LABELS, tmp_path / "b")
    tiny_tokenizer(words=[f"w{index}" for index in range(40)]).save_pretrained(folder)
    base = load_base_model(str(folder), num_labels=2)
    text = "has tokens up to 43, but the base model has embeddings for 28"
    with pytest.raises(ModelError, match=text):
        TextInputs.of(str(folder), max_length=8).bound_to(base)
