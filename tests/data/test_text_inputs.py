"""Texts: what is refused, and the tokenizer that a bundle names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_text import save_tiny_backbone, tiny_tokenizer

from fedcert.data import InputSpec, TextInputs, input_spec_from_config
from fedcert.errors import BundleError, DataError, ModelError
from fedcert.models import BaseModel, load_base_model, with_task_head


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    source = save_tiny_backbone(tmp_path_factory.mktemp("source"), "bert")
    return load_base_model(str(with_task_head(source, ["bad", "good"])), num_labels=2)


@pytest.fixture
def spec(base: BaseModel) -> TextInputs:
    return TextInputs.of(base.name, max_length=8)


def _texts(*texts: object) -> np.ndarray:
    return np.array(texts, dtype=object)


def test_white_space_is_collapsed(spec: TextInputs) -> None:
    assert list(spec.normalize(_texts(" good1\n\tbad2 "))) == ["good1 bad2"]
    assert list(spec.normalize(np.array(["good1"]))) == ["good1"]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (_texts("good1", "  "), "example 2 is an empty text"),
        (_texts("good1", "bad1", 3.5), "example 3 is not a text but float"),
        (np.array([[1.0, 2.0]]), "example 1 is not a text"),
    ],
)
def test_what_is_no_text_is_refused(spec: TextInputs, texts: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        spec.normalize(texts)


def test_encoding_pads_to_the_longest_and_cuts(spec: TextInputs, base: BaseModel) -> None:
    encoded = spec.bound_to(base).encode(_texts("good0", "good0 good1 bad0", "what"))
    assert encoded["input_ids"].tolist() == [[4, 0, 0], [4, 5, 16], [1, 0, 0]]
    assert encoded["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1], [1, 0, 0]]
    long = spec.bound_to(base).encode(_texts(" ".join(["good0"] * 30)))
    assert long["input_ids"].shape == (1, 8)


def test_encoding_needs_a_base_model(spec: TextInputs) -> None:
    with pytest.raises(ModelError, match="bind them to a base model"):
        spec.encode(_texts("good1"))


def test_config_round_trip(spec: TextInputs, base: BaseModel) -> None:
    bound = spec.bound_to(base)
    rebuilt: InputSpec = input_spec_from_config(bound.to_config())
    assert rebuilt == spec == bound
    with pytest.raises(BundleError, match="damaged"):
        input_spec_from_config(spec.to_config() | {"_tokenizer": "x"})
    with pytest.raises(
        BundleError, match="damaged: max_length must be an integer of at least 2"
    ):
        input_spec_from_config(spec.to_config() | {"max_length": "8"})


def test_another_tokenizer_is_refused(
    spec: TextInputs, base: BaseModel, tmp_path: Path
) -> None:
    base.model.save_pretrained(tmp_path)
    words = [f"w{index}" for index in range(24)]
    tiny_tokenizer(words=words).save_pretrained(tmp_path)
    other = load_base_model(str(tmp_path), num_labels=2)
    assert other.digest == base.digest
    with pytest.raises(ModelError, match="another tokenizer"):
        spec.bound_to(other)


def test_the_digest_does_not_depend_on_calls(spec: TextInputs, base: BaseModel) -> None:
    from fedcert.models import load_tokenizer, tokenizer_digest

    tokenizer = load_tokenizer(base.name)
    tokenizer(["good1", "bad1 bad2"], padding=True, truncation=True, max_length=5)
    assert tokenizer_digest(tokenizer) == spec.tokenizer_digest


def test_a_folder_without_tokenizer(base: BaseModel, tmp_path: Path) -> None:
    base.model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="tokenizer"):
        TextInputs.of(str(tmp_path), max_length=8)


def test_texts_longer_than_the_model(base: BaseModel) -> None:
    with pytest.raises(ModelError, match="set a smaller max_length"):
        TextInputs.of(base.name, max_length=99).bound_to(base)
