"""A base model's digest: it covers what the forward pass reads, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_models import Family, make_family
from tiny_text import save_tiny_backbone, tiny_tokenizer

from fedcert.adapters import AdapterSpace, Task
from fedcert.data import TextInputs
from fedcert.errors import AdapterError, ModelError
from fedcert.models import load_base_model, with_label_names, with_label_phrases
from models.tiny_encoders import save_sentence_encoder

RELEVANT = [
    ("bert", {"num_attention_heads": 1}),
    ("bert", {"hidden_act": "tanh"}),
    ("bert", {"layer_norm_eps": 1e-2}),
    ("bert", {"pad_token_id": 3}),
    ("bert", {"an_entry_that_nobody_knows": 1}),
    ("vit", {"hidden_act": "silu"}),
    ("llama", {"num_attention_heads": 4, "head_dim": 4, "num_key_value_heads": 2}),
    ("llama", {"rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}}),
    ("llama", {"rms_norm_eps": 1e-3}),
    ("qwen", {"sliding_window": 3}),
]
IRRELEVANT = [
    {"id2label": {"0": "good", "1": "bad"}, "label2id": {"good": 0, "bad": 1}},
    {"transformers_version": "5.3.0", "_name_or_path": "elsewhere"},
    {"torch_dtype": "float16"},
    {"dtype": "bfloat16"},
    {"architectures": None},
    {"problem_type": "single_label_classification"},
    {"hidden_dropout_prob": 0.4, "attention_probs_dropout_prob": 0.4},
    {"initializer_range": 0.5, "use_cache": False, "gradient_checkpointing": True},
    {"fedcert": {"quantization": "none"}},
    {"an_entry_without_a_value": None},
]


def _changed(family: Family, folder: Path, change: dict[str, Any]) -> str:
    shutil.copytree(family.folder, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    return str(folder)


@pytest.mark.parametrize(("name", "change"), RELEVANT, ids=str)
def test_what_the_forward_pass_reads_is_refused(
    name: str, change: dict[str, Any], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    family: Family = request.getfixturevalue(name)
    copy = _changed(family, tmp_path / "copy", change)
    with pytest.raises(ModelError, match="other weights or another configuration"):
        load_base_model(copy, num_labels=2, digest=family.base.digest)
    if "head_dim" not in change:
        assert load_base_model(copy, num_labels=2).weights == family.base.weights


@pytest.mark.parametrize("change", IRRELEVANT, ids=lambda value: next(iter(value)))
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_what_it_does_not_read_is_the_same_model(
    name: str, change: dict[str, Any], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    family: Family = request.getfixturevalue(name)
    copy = _changed(family, tmp_path / "copy", change)
    assert load_base_model(copy, num_labels=2).digest == family.base.digest


def _terse(config: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is a default, as other releases of transformers do."""
    defaults = ("hidden_act", "layer_norm_eps", "type_vocab_size", "is_decoder", "use_cache")
    return {key: value for key, value in config.items() if key not in defaults}


def _old_rope(config: dict[str, Any]) -> dict[str, Any]:
    """Say the rotary base as releases before 5 did."""
    rope = config.pop("rope_parameters")
    return config | {"rope_theta": int(rope["rope_theta"]), "rope_scaling": None}


@pytest.mark.parametrize(("name", "rewrite"), [("bert", _terse), ("llama", _old_rope)])
def test_other_words_for_the_same_configuration_are_the_same_model(
    name: str,
    rewrite: Callable[[dict[str, Any]], dict[str, Any]],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    family: Family = request.getfixturevalue(name)
    shutil.copytree(family.folder, tmp_path / "copy")
    path = tmp_path / "copy" / "config.json"
    path.write_text(json.dumps(rewrite(json.loads(path.read_text()))))
    again = load_base_model(str(tmp_path / "copy"), num_labels=2, digest=family.base.digest)
    assert again.digest == family.base.digest


def test_a_model_saved_again_is_the_same(bert: Family, tmp_path: Path) -> None:
    bert.fresh().model.save_pretrained(tmp_path)
    assert load_base_model(str(tmp_path), num_labels=2).digest == bert.base.digest


def test_a_digest_of_weights_alone_still_names_the_model(vit: Family, tmp_path: Path) -> None:
    """Bundles, spaces and certificates from before have no other."""
    base = load_base_model(str(vit.folder), num_labels=2, digest=vit.base.weights)
    assert "does not cover the configuration" in base.note_on(vit.base.weights)
    assert base.note_on(vit.base.digest) == ""
    older = replace(vit.space(), base_digest=vit.base.weights)
    Task(base, older, vit.inputs)
    with pytest.raises(AdapterError, match="another base model"):
        Task(base, replace(older, base_digest="0" * 64), vit.inputs)


def test_families_have_digests_of_their_own(tmp_path: Path) -> None:
    """The same numbers under another family are another model."""
    first, second = make_family("bert", tmp_path / "a"), make_family("bert", tmp_path / "b")
    assert first.base.digest == second.base.digest
    assert AdapterSpace.of(first.base, rank=2, last_layers=1).base_digest == first.base.digest


@pytest.mark.parametrize("activation", ["Identity", "ReLU", "GELU"])
def test_activations_of_dense_layers_are_covered(tmp_path: Path, activation: str) -> None:
    source = save_sentence_encoder(tmp_path / "source", dense=8)
    folder = with_label_names(source, tmp_path / "base")
    base = load_base_model(str(folder))
    other = _with_note(folder, tmp_path / "other", "dense", [activation])
    with pytest.raises(ModelError, match=base.digest[:12]):
        load_base_model(str(other), digest=base.digest)


def test_how_phrases_of_ones_own_labels_are_scored_is_covered(tmp_path: Path) -> None:
    language_model = save_tiny_backbone(tmp_path / "lm", "llama")
    tiny_tokenizer().save_pretrained(language_model)
    folder = with_label_phrases(language_model, None, folder=tmp_path / "sum")
    base = load_base_model(str(folder))
    other = _with_note(folder, tmp_path / "mean", "average", True)
    with pytest.raises(ModelError, match=base.digest[:12]):
        load_base_model(str(other), digest=base.digest)


def test_from_which_end_texts_are_cut_is_the_tokenizers(tmp_path: Path) -> None:
    folder = save_sentence_encoder(tmp_path / "source")
    spec = TextInputs.of(str(folder), max_length=8)
    other = tmp_path / "left"
    for copy in (other, tmp_path / "same"):
        shutil.copytree(folder, copy)
    assert TextInputs.of(str(tmp_path / "same"), max_length=8) == spec
    about = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(
        json.dumps(about | {"truncation_side": "left"})
    )
    assert TextInputs.of(str(other), max_length=8) != spec


def _with_note(folder: Path, copy: Path, noted: str, value: Any) -> Path:
    """Copy a base model with another word in what fedcert noted in its configuration."""
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    assert config["fedcert"][noted] != value
    config["fedcert"][noted] = value
    (copy / "config.json").write_text(json.dumps(config))
    return copy
