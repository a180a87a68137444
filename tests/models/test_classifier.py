"""An adapter folder and its base model are enough to predict, whatever the head is."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from tiny_models import Family
from tiny_text import save_tiny_backbone, tiny_texts, tiny_tokenizer
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

import fedcert
from fedcert.adapters import AdapterSpace, Task, write_peft_adapter
from fedcert.classifier import Classifier
from fedcert.data import ImageInputs, InputSpec, PromptInputs, TextInputs
from fedcert.errors import AdapterError, DataError, ModelError
from fedcert.models import (
    BaseModel,
    load_base_model,
    with_label_names,
    with_label_phrases,
    with_task_head,
)
from fedcert.randomness import keyed_generator
from models.tiny_encoders import NAMES, save_encoder, save_sentence_encoder

KINDS = ("names", "pooled", "classification", "phrases", "own phrases")


def _made(kind: str, folder: Path) -> tuple[BaseModel, InputSpec]:
    labels = ("bad", "good")
    if "phrases" in kind:
        source = save_tiny_backbone(folder / "s", "llama")
        if kind == "phrases":
            made = with_label_phrases(source, labels, ["bad1", "good1"], folder / "b")
            base = load_base_model(str(made), num_labels=2)
        else:
            made = with_label_phrases(source, None, folder=folder / "b")
            phrases = {"bad": "bad1", "good": "good1 good2"}
            base = load_base_model(str(made)).with_labels(labels, descriptions=phrases)
        return base, PromptInputs.of(base.name, max_length=12, template="good2 {text} bad3")
    source = save_sentence_encoder(folder / "s")
    if kind == "classification":  # nothing says how its hidden states are pooled
        source = save_encoder(folder / "e", "bert")
    if kind == "names":
        base = load_base_model(str(with_label_names(source, folder / "b")))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            base = base.with_labels(labels, descriptions={"good": "good1 good2"})
    else:
        base = load_base_model(str(with_task_head(source, labels, folder / "b")))
    return base, TextInputs.of(base.name, max_length=12)


def _exported(kind: str, folder: Path) -> tuple[BaseModel, InputSpec, AdapterSpace, np.ndarray]:
    base, spec = _made(kind, folder)
    space = AdapterSpace.of(base, rank=2)
    vector = 0.5 * keyed_generator("classifier", kind).standard_normal(space.dimension)
    inputs = spec.to_config()
    write_peft_adapter(
        space, vector, folder / "a", base_name=base.name, base=base, inputs=inputs
    )
    return base, spec, space, vector


@pytest.mark.filterwarnings("ignore:the labels")
@pytest.mark.parametrize("kind", KINDS)
def test_it_predicts_as_the_adapter_does(kind: str, tmp_path: Path) -> None:
    base, spec, space, vector = _exported(kind, tmp_path)
    classifier = fedcert.load_classifier(tmp_path / "a", tmp_path / "b")
    texts = list(tiny_texts(70).inputs)
    model, bound = Task(base, space, spec).model(), spec.bound_to(base)
    with torch.no_grad():
        prepared = model.prepare(bound.encode(np.array(texts, dtype=object)))
        logits = model.logits(prepared, torch.from_numpy(vector).float()[None])[0]
    found = classifier.predict_proba(texts)
    np.testing.assert_allclose(found, logits.softmax(-1).numpy(), atol=1e-4)
    assert classifier.labels == ("bad", "good")
    predicted = classifier.predict(texts)
    assert predicted == [("bad", "good")[row] for row in found.argmax(axis=1)]
    assert set(predicted) <= {"bad", "good"}
    # As loaded from a base model in memory, too.
    bare = load_base_model(str(tmp_path / "b"))
    again = fedcert.load_classifier(str(tmp_path / "a"), bare).predict_proba(texts[:5])
    np.testing.assert_allclose(again, found[:5], atol=1e-5)
    with pytest.raises(DataError, match="example 2 is an empty text"):
        classifier.predict(["good1", " "])


def test_a_trained_head_is_read_from_its_file_by_anybody(tmp_path: Path) -> None:
    """Stock PEFT on the stock encoder, pooling, and what head.safetensors says of itself."""
    _exported("pooled", tmp_path)
    texts = ["good1 bad2", "bad0", "good3"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "b")
    encoder = AutoModel.from_pretrained(tmp_path / "b")
    adapted = PeftModel.from_pretrained(encoder, str(tmp_path / "a")).eval()
    with safe_open(tmp_path / "a" / "head.safetensors", "pt") as head, torch.no_grad():
        logits = []
        for text in texts:
            hidden = adapted(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            embedding = normalize(hidden.mean(dim=0), dim=-1)
            scaled = float(head.metadata()["scale"]) * embedding
            logits.append(head.get_tensor("weight") @ scaled + head.get_tensor("bias"))
    found = fedcert.load_classifier(tmp_path / "a", tmp_path / "b").predict_proba(texts)
    np.testing.assert_allclose(torch.stack(logits).softmax(-1).numpy(), found, atol=1e-4)


def test_images_are_predicted_too(vit: Family, tmp_path: Path) -> None:
    space = vit.space()
    vector = keyed_generator("images").standard_normal(space.dimension)
    write_peft_adapter(
        space,
        vector,
        tmp_path / "a",
        base_name="vit",
        base=vit.base,
        labels=("low", "high"),
        inputs=vit.inputs.to_config(),
    )
    classifier = fedcert.load_classifier(tmp_path / "a", vit.folder)
    images = vit.examples(3).inputs
    assert set(classifier.predict(images)) <= {"low", "high"}
    assert classifier.predict_proba(images).shape == (3, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_names_no_place_on_this_machine(kind: str, tmp_path: Path) -> None:
    _exported(kind, tmp_path)
    about = json.loads((tmp_path / "a" / "classifier.json").read_text())
    assert about["base_model"]["name"] == "b"
    for file in (tmp_path / "a").iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file.name


@pytest.mark.filterwarnings("ignore:the labels")
def test_a_default_adapter_takes_labels_of_ones_own(tmp_path: Path) -> None:
    _made("names", tmp_path)
    base = load_base_model(str(tmp_path / "b"))
    space = AdapterSpace.of(base, rank=2)
    spec = TextInputs.of(base.name, max_length=12)
    write_peft_adapter(
        space,
        np.zeros(space.dimension),
        tmp_path / "a",
        base_name=base.name,
        base=base,
        inputs=spec.to_config(),
    )
    with pytest.raises(AdapterError, match=r"exported without labels, for any; pass labels="):
        fedcert.load_classifier(tmp_path / "a", base)
    assert fedcert.load_classifier(tmp_path / "a", base, labels=NAMES).labels == NAMES


@pytest.mark.filterwarnings("ignore:the labels")
@pytest.mark.parametrize("wrong", ["labels", "base", "inputs", "json", "format", "folder"])
def test_what_does_not_fit_is_refused(wrong: str, tmp_path: Path) -> None:
    _exported("names", tmp_path)
    folder, options = tmp_path / "a", {}
    about = json.loads((folder / "classifier.json").read_text())
    errors: type[Exception] = AdapterError
    if wrong == "labels":
        options, said = {"labels": ("good", "bad")}, "exported for the labels bad, good, and"
    elif wrong == "base":
        about["base_model"]["digest"] = "0" * 64
        errors, said = ModelError, "has other weights"
    elif wrong == "inputs":
        about["inputs"] = None
        said = "does not say how inputs are encoded"
    elif wrong == "json":
        del about["labels"]
        said = "damaged"
    elif wrong == "format":
        about["format"] = "fedcert.classifier/9"
        said = "use the fedcert version that exported the adapter"
    else:
        folder, said = tmp_path / "nothing", "there is no such folder"
    if folder.exists():
        (folder / "classifier.json").write_text(json.dumps(about))
    with pytest.raises(errors, match=said):
        fedcert.load_classifier(folder, tmp_path / "b", **options)


@pytest.mark.parametrize("kind", ["pooled", "classification", "phrases"])
@pytest.mark.parametrize("labels", [["good", "bad"], ["bad", "good", "odd"]])
def test_labels_in_another_order_are_refused(
    kind: str, labels: list[str], tmp_path: Path
) -> None:
    _exported(kind, tmp_path)
    file = tmp_path / "a" / "classifier.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"labels": labels}))
    with pytest.raises(AdapterError, match="and the base model's bad, good; export"):
        fedcert.load_classifier(tmp_path / "a", tmp_path / "b")


def test_a_tokenizer_of_another_kind_is_refused(tmp_path: Path) -> None:
    _exported("pooled", tmp_path)
    tiny_tokenizer(words=["other"]).save_pretrained(tmp_path / "b")
    from fedcert.data import text
    from fedcert.models import tokenizer

    tokenizer.load_tokenizer.cache_clear()
    text._digest.cache_clear()
    with pytest.raises(ModelError, match="another tokenizer"):
        fedcert.load_classifier(tmp_path / "a", tmp_path / "b")


def test_importing_the_package_does_not_wait_for_torch() -> None:
    program = "import sys, fedcert; assert 'torch' not in sys.modules; fedcert.load_classifier"
    subprocess.run([sys.executable, "-c", program], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = fedcert.nothing


class _Same(torch.nn.Module):
    """Gives every input the same logits."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(logits))

    def forward(self, pixel_values: torch.Tensor) -> Any:
        return SimpleNamespace(logits=self.logits.expand(len(pixel_values), -1))


def test_an_early_exit_has_no_exit_of_its_own() -> None:
    """The late adapter was certified behind the middle one alone."""
    spec, names = ImageInputs(3, 2, 4, 0.0, 255.0, layout="HWC"), ("no", "yes")
    first = Classifier(_Same(3.0, 0.0), spec, names)
    middle = Classifier(_Same(0.0, 3.0), spec, names, early=(first, 1.0))
    late = Classifier(_Same(0.0, 1.0), spec, names, early=(middle, 1.0))
    images = np.zeros((2, 2, 4, 3))
    assert first.predict(images) == middle.predict(images) == ["no", "no"]
    assert late.predict(images) == ["yes", "yes"]
    assert not late.goes_on(images).any()


def test_a_single_text_is_no_list_of_texts(tmp_path: Path) -> None:
    base, inputs = _made("names", tmp_path)
    classifier = Classifier(base.model, inputs.bound_to(base), base.label_names)
    with pytest.raises(DataError, match=r"give a list of texts, \[text\]"):
        classifier.predict("good1")
    assert classifier.answers(["good1"])[0].label == classifier.predict(["good1"])[0]
