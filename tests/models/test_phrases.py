"""Phrases of a causal language model for labels that each client brings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_text import save_tiny_backbone, tiny_texts

from fedcert.adapters import AdapterSpace, FinetuneSettings, Task, finetune
from fedcert.data import PromptInputs
from fedcert.errors import DataError, ModelError
from fedcert.models import BaseModel, LabelSet, load_base_model, with_label_phrases
from fedcert.models.identity import weight_digest
from fedcert.randomness import keyed_generator
from fedcert.search import BatchedScorer, ReferenceScorer

LABELS = ("bad", "good", "mixed")
PHRASES = {"bad": "bad1", "good": "good1 good2", "mixed": "bad3 good4 bad5"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save_tiny_backbone(tmp_path / "lm", "llama")


def _free(source: Path, **options: bool) -> BaseModel:
    folder = with_label_phrases(source, None, folder=source.parent / "free", **options)
    return load_base_model(str(folder))


def _spec(base: BaseModel) -> PromptInputs:
    return PromptInputs.of(base.name, max_length=12, template="good2 {text} bad3")


@pytest.mark.parametrize("average", [False, True])
def test_logits_are_those_of_a_base_model_made_for_the_labels(
    source: Path, average: bool
) -> None:
    fixed = with_label_phrases(
        source, LABELS, list(PHRASES.values()), source.parent / "fixed", average=average
    )
    bases = (
        _free(source, average=average).with_labels(LABELS, descriptions=PHRASES),
        load_base_model(str(fixed), num_labels=3),
    )
    examples, losses = tiny_texts(6), []
    for base in bases:
        space = AdapterSpace.of(base, rank=2, last_layers=2)
        vectors = keyed_generator("phrases").standard_normal((3, space.dimension))
        scorers = (
            BatchedScorer(Task(base, space, _spec(base)).model(), margin_tolerance=1e-5),
            ReferenceScorer(Task(base, space, _spec(base)), margin_tolerance=1e-5),
        )
        losses += [scorer.score(vectors, examples).losses for scorer in scorers]
    for other in losses[1:]:
        np.testing.assert_allclose(losses[0], other, atol=1e-4)
    assert bases[0].label_names == bases[1].label_names == LABELS


def test_label_sets_share_weights_digest_and_space(source: Path) -> None:
    base = _free(source)
    two = base.with_labels(LABELS[:2], descriptions={n: PHRASES[n] for n in LABELS[:2]})
    three = base.with_labels(LABELS, descriptions=PHRASES)
    assert base.takes_labels
    assert two.takes_labels
    assert [b.num_labels for b in (base, two, three)] == [0, 2, 3]
    assert {b.digest for b in (base, two, three)} == {base.digest}
    assert {weight_digest(b.model) for b in (base, two, three)} == {base.weights}
    spaces = [AdapterSpace.of(b, rank=2) for b in (base, two, three)]
    assert len({space.digest for space in spaces}) == 1
    assert next(two.model.parameters()) is next(three.model.parameters())
    assert not any(module.training for module in three.model.modules())
    # Labels can be given anew, and one class teaches as well.
    again = three.with_labels(LABELS[:2], descriptions={n: PHRASES[n] for n in LABELS[:2]})
    assert again.num_labels == 2
    examples = tiny_texts(10)
    good = examples.take(examples.labels == 1)
    model = Task(again, spaces[0], _spec(again)).model()
    finetune(model, good, seed=0, settings=FinetuneSettings(steps=2))


def test_phrases_that_cannot_be_told_apart_are_refused(source: Path) -> None:
    base = _free(source)
    with pytest.raises(ModelError, match=r"call base.with_labels\(names\) first"):
        base.model(input_ids=torch.tensor([[4, 5]]))
    with pytest.raises(ModelError, match="is empty or unknown to the tokenizer"):
        base.with_labels(("unheard", "of"))
    with pytest.raises(ModelError, match="begins with"):
        base.with_labels(("a", "b"), descriptions={"a": "bad1", "b": "bad1 bad2"})
    several = LabelSet.of(("good1", "bad1"), template=("{label}", "bad7 {label}"))
    with pytest.raises(DataError, match="'good1' has several phrases"):
        base.with_labels(several)
    with pytest.raises(ModelError, match="phrases belong to labels"):
        with_label_phrases(source, None, ["x"], source.parent / "x")
