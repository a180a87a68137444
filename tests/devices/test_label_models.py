"""Base models with labels of their own kind: phrases, names, trained heads, two towers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models.tiny_encoders import save_encoder, save_sentence_encoder
from tiny_text import save_tiny_backbone, tiny_texts

import fedcert
from fedcert.adapters import (
    AdapterSpace,
    FinetuneSettings,
    PrefixCache,
    Task,
    finetune,
    write_peft_adapter,
)
from fedcert.data import Examples, ImageInputs, InputSpec, PromptInputs, TextInputs
from fedcert.models import (
    BaseModel,
    load_base_model,
    with_label_names,
    with_label_phrases,
    with_task_head,
)
from fedcert.randomness import keyed_generator
from fedcert.search import BatchedScorer, ReferenceScorer, exported_wrong
from fedcert.search.learning import has_linear_head, local_head

TOLERANCE = 1e-4
LABELS = ("bad", "good")
PHRASES = {"bad": "bad1", "good": "good1 good2"}
IMAGES = ImageInputs(3, 8, 8, 0.0, 16.0)
pytestmark = pytest.mark.filterwarnings("ignore:the labels")

Load = Callable[[torch.device | None], BaseModel]


def _phrases(folder: Path, *, fixed: bool) -> tuple[Load, InputSpec, Examples]:
    source = save_tiny_backbone(folder / "lm", "llama")
    labels, words = (LABELS, list(PHRASES.values())) if fixed else (None, None)
    made = with_label_phrases(source, labels, words, folder=folder / "base")

    def load(device: torch.device | None) -> BaseModel:
        base = load_base_model(str(made), device=device)
        return base if fixed else base.with_labels(LABELS, descriptions=PHRASES)

    spec = PromptInputs.of(str(made), max_length=12, template="good2 {text} bad3")
    return load, spec, tiny_texts(9)


def _names(folder: Path, family: str, **options: Any) -> tuple[Load, InputSpec, Examples]:
    source = save_encoder(folder / "source", family)
    made = with_label_names(source, folder / "base", **options)

    def load(device: torch.device | None) -> BaseModel:
        return load_base_model(str(made), device=device).with_labels(("bad0 bad1", "good3"))

    return load, TextInputs.of(str(made), max_length=12), tiny_texts(9)


def _trained(folder: Path, **options: Any) -> tuple[Load, InputSpec, Examples]:
    source = save_sentence_encoder(folder / "source", dense=8)
    made = with_task_head(source, LABELS, folder / "base", **options)

    def load(device: torch.device | None) -> BaseModel:
        return load_base_model(str(made), device=device)

    return load, TextInputs.of(str(made), max_length=12), tiny_texts(9)


def _towers(folder: Path) -> tuple[Load, InputSpec, Examples]:
    from models.test_dual_encoders import save_towers

    source = save_towers(folder / "clip")
    made = with_label_names(source, folder / "base", template="about {label}")

    def load(device: torch.device | None) -> BaseModel:
        return load_base_model(str(made), device=device).with_labels(LABELS)

    generator = keyed_generator("towers")
    images = IMAGES.normalize(generator.uniform(0, 16, (9, 3, 8, 8)))
    return load, IMAGES, Examples(images, generator.integers(0, 2, 9))


CASES: dict[str, Callable[[Path], tuple[Load, InputSpec, Examples]]] = {
    "phrases": lambda folder: _phrases(folder, fixed=True),
    "own phrases": lambda folder: _phrases(folder, fixed=False),
    "names, mean": lambda folder: _names(folder, "bert", pooling="mean"),
    "names, last": lambda folder: _names(folder, "llama", pooling="last"),
    "trained, dense, int8": lambda folder: _trained(folder, quantization="int8"),
    "clip": _towers,
}


@pytest.mark.parametrize("case", CASES)
def test_another_device_gives_the_same(case: str, device: torch.device, tmp_path: Path) -> None:
    load, spec, examples = CASES[case](tmp_path)
    found = []
    space = AdapterSpace.of(load(None), rank=2, last_layers=2)
    vectors = keyed_generator("labels").standard_normal((3, space.dimension))
    for place in (None, device):
        base = load(place)
        assert AdapterSpace.of(base, rank=2, last_layers=2).digest == space.digest
        task = Task(base, space, spec)
        model = task.model(prefix_cache=PrefixCache())
        scores = BatchedScorer(model, margin_tolerance=TOLERANCE).score(vectors, examples)
        stock = ReferenceScorer(task, margin_tolerance=TOLERANCE).score(vectors, examples)
        folder = tmp_path / f"adapter-{base.device.type}"
        write_peft_adapter(
            space,
            vectors[0],
            folder,
            base_name=base.name,
            base=base,
            labels=task.labels,
            inputs=task.inputs.to_config(),
        )
        wrong = exported_wrong(task, folder, examples, margin_tolerance=TOLERANCE)
        np.testing.assert_array_equal(wrong, scores.wrong[0])
        predicted = fedcert.load_classifier(folder, base).predict_proba(examples.inputs)
        tuned = finetune(
            model, examples, seed=1, settings=FinetuneSettings(steps=3, batch_size=4)
        )
        found.append([scores.losses, stock.losses, predicted, tuned.vector])
        if has_linear_head(space):
            scorer = BatchedScorer(model, margin_tolerance=TOLERANCE)
            found[-1].append(local_head(scorer, examples))
    for here, there in zip(*found, strict=True):
        np.testing.assert_allclose(here, there, atol=2e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_candidates_are_ranked_in_either_precision(
    precision: str, device: torch.device, tmp_path: Path
) -> None:
    load, spec, examples = _names(tmp_path, "bert", pooling="mean")
    losses = []
    for place in (None, device):
        task = Task(load(place), AdapterSpace.of(load(None), rank=2), spec)
        scorer = BatchedScorer(task.model(), margin_tolerance=TOLERANCE, precision=precision)
        vectors = keyed_generator("precise").standard_normal((3, task.space.dimension))
        losses.append(scorer.score(vectors, examples).losses)
    np.testing.assert_allclose(*losses, atol=1e-3 if precision == "float32" else 0.3)
