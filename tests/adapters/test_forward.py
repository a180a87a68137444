"""Running many adapters at once: right, and without a trace on the base model."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import Family, TokenInputs
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    Gemma2Config,
    Gemma2ForSequenceClassification,
)

from fedcert.adapters import AdaptedModel, AdapterSpace, FinetuneSettings, Task, finetune
from fedcert.adapters.layer_attention import LayerAttention
from fedcert.errors import AdapterError, ModelError
from fedcert.models.base import freeze
from fedcert.models.identity import weight_digest
from fedcert.search import BatchedScorer, ReferenceScorer


def _vectors(model: AdaptedModel, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, model.space.dimension, generator=generator)


def _traces(model: nn.Module) -> list[str]:
    """Name the modules that carry a hook or whose own forward was replaced."""
    return [
        name
        for name, module in model.named_modules()
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    ]


def _fine_tune(family: Family, model: AdaptedModel) -> None:
    settings = FinetuneSettings(steps=2)
    finetune(model, family.examples(6), seed=0, settings=settings)


def _run(family: Family, model: AdaptedModel) -> None:
    model.logits(model.prepare(family.encoded(4)), _vectors(model, 3))


@pytest.mark.parametrize("act", [_run, _fine_tune], ids=["logits", "finetune"])
@pytest.mark.parametrize("failing", [False, True], ids=["works", "fails"])
def test_the_base_model_is_as_it_was(
    family: Family,
    act: Callable[[Family, AdaptedModel], None],
    failing: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = family.adapted(last_layers=1)
    before = [name for name, _ in family.base.model.named_modules()]
    if failing:
        head = family.base.model.get_submodule(family.base.layout.head)
        monkeypatch.setattr(head, "forward", _stop)
        with pytest.raises(RuntimeError, match="stop"):
            act(family, model)
        monkeypatch.undo()
    else:
        act(family, model)
    assert weight_digest(family.base.model) == family.base.weights
    assert _traces(family.base.model) == []
    assert [name for name, _ in family.base.model.named_modules()] == before
    assert not any(
        p.requires_grad or p.grad is not None for p in family.base.model.parameters()
    )


def _stop(*_args: object, **_options: object) -> None:
    raise RuntimeError("stop")


def test_a_failure_below_the_adapters_leaves_no_trace(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = family.adapted(last_layers=1)
    first = family.base.model.get_submodule(f"{family.base.layout.layers}.0")
    monkeypatch.setattr(first, "forward", _stop)
    with pytest.raises(RuntimeError, match="stop"):
        model.prepare(family.encoded(4))
    monkeypatch.undo()
    assert _traces(family.base.model) == []


def test_a_zero_core_and_the_own_head_give_the_base_model(any_family: Family) -> None:
    model = any_family.adapted()
    own = dict(any_family.base.model.named_parameters())
    vector = torch.cat([
        own[name].flatten() if name in own else torch.zeros(shape).flatten()
        for name, shape in model.space.shapes().items()
    ])  # fmt: skip
    inputs = any_family.encoded(5)
    with torch.no_grad():
        expected = any_family.base.model(**inputs).logits
        logits = model.logits(model.prepare(inputs), vector[None])[0]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("reduce_top", [True, False])
def test_starting_at_the_first_adapted_layer_changes_nothing(
    any_family: Family, reduce_top: bool
) -> None:
    """The same adapters in a space of all layers, where nothing can be skipped."""
    short, whole = any_family.space(last_layers=1), any_family.space(last_layers=3)
    vectors = torch.zeros(4, whole.dimension)
    top = _vectors(Task(any_family.base, short, any_family.inputs).model(), 4)
    vectors[:, -short.dimension :] = top
    inputs = any_family.encoded(5)
    partly = Task(any_family.base, short, any_family.inputs).model(reduce_top=reduce_top)
    fully = Task(any_family.base, whole, any_family.inputs).model(reduce_top=False)
    torch.testing.assert_close(
        partly.logits(partly.prepare(inputs), top),
        fully.logits(fully.prepare(inputs), vectors),
        atol=1e-5,
        rtol=1e-5,
    )


@torch.no_grad()
def test_frozen_layers_run_once_for_all_adapters(any_family: Family) -> None:
    model = any_family.adapted(last_layers=1)
    model.prepare(any_family.encoded(5))  # the first examples are run in other ways too
    lower = any_family.base.model.get_submodule(f"{any_family.base.layout.layers}.0")
    linear = next(m for m in lower.modules() if isinstance(m, nn.Linear))
    calls: list[int] = []
    handle = linear.register_forward_pre_hook(lambda _module, args: calls.append(len(args[0])))
    try:
        prepared = model.prepare(any_family.encoded(5, seed=1))
        for _ in range(3):
            model.logits(prepared, _vectors(model, 4))
    finally:
        handle.remove()
    assert calls == [5]


ALL_LINEAR = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    *("query", "key", "value", "dense", "fc1", "fc2"),
)


@torch.no_grad()
@pytest.mark.parametrize("projections", [ALL_LINEAR, ("k_proj", "key"), ("q_proj", "dense")])
@pytest.mark.parametrize("last_layers", [1, 2])
def test_the_reduced_top_layer_equals_the_full_one(
    any_family: Family, projections: tuple[str, ...], last_layers: int
) -> None:
    space = AdapterSpace.of(
        any_family.base, rank=3, last_layers=last_layers, projections=projections
    )
    reduced = Task(any_family.base, space, any_family.inputs).model()
    full = Task(any_family.base, space, any_family.inputs).model(reduce_top=False)
    # Checked on examples without padding, used on examples with it.
    if isinstance(any_family.inputs, TokenInputs):
        ids = torch.randint(1, 50, (4, 7), generator=torch.Generator().manual_seed(3))
        reduced.prepare(any_family.inputs.encode(ids.numpy()))
    inputs = any_family.encoded(6)
    logits = [m.logits(m.prepare(inputs), 0.5 * _vectors(m, 3)) for m in (reduced, full)]
    torch.testing.assert_close(*logits, atol=2e-5, rtol=2e-5)
    rotary = any_family.name in {"llama", "qwen"} and "k_proj" in projections
    assert reduced.note == (
        "the top layer runs in full: its rotary keys are adapted" if rotary else ""
    )


@torch.no_grad()
def test_a_reduction_that_goes_wrong_is_not_used(
    any_family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, model = any_family.adapted(last_layers=1), any_family.adapted(last_layers=1)
    vectors, inputs = _vectors(model, 3), any_family.encoded(5)
    expected = exact.logits(exact.prepare(inputs), vectors)
    real = LayerAttention.shared_context
    monkeypatch.setattr(LayerAttention, "shared_context", lambda *args: 1.01 * real(*args))
    logits = model.logits(model.prepare(inputs), vectors)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert "the top layer runs in full: reduced it differs by" in model.note


def _albert() -> nn.Module:
    """One layer that runs three times."""
    size = {"hidden_size": 16, "embedding_size": 16, "intermediate_size": 32}
    more = {"num_hidden_layers": 3, "num_attention_heads": 2, "initializer_range": 0.2}
    return AlbertForSequenceClassification(AlbertConfig(vocab_size=50, **size, **more))


def _gemma2() -> nn.Module:
    """Attention scores that are capped."""
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "attn_logit_softcapping": 1.0}
    config = Gemma2Config(vocab_size=50, initializer_range=0.2, pad_token_id=0, **size, **heads)
    return Gemma2ForSequenceClassification(config)


@torch.no_grad()
@pytest.mark.parametrize("build", [_albert, _gemma2])
def test_unusual_models_run_as_with_peft(bert: Family, build: Callable[[], nn.Module]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        base = freeze(build(), name="unusual", revision="local")
    space = AdapterSpace.of(base, rank=3)
    model, examples = Task(base, space, bert.inputs).model(), bert.examples(6)
    vectors = 0.5 * _vectors(model, 3).double().numpy()
    scorers = (
        BatchedScorer(model, margin_tolerance=0.0),
        ReferenceScorer(Task(base, space, bert.inputs), margin_tolerance=0.0),
    )
    ours, theirs = (scorer.score(vectors, examples).losses for scorer in scorers)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert model.note.startswith("the top layer runs in full: ")


@torch.no_grad()
@pytest.mark.parametrize("last_layers", [1, 2, 3])
def test_copies_equal_one_by_one(any_family: Family, last_layers: int) -> None:
    model = any_family.adapted(last_layers=last_layers)
    prepared, vectors = model.prepare(any_family.encoded(5)), _vectors(model, 6)
    together = model.logits(prepared, vectors)
    alone = torch.cat([model.logits(prepared, vector[None]) for vector in vectors])
    assert together.shape == (6, 5, 2)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    # The adapters do differ, or equality would say nothing.
    assert together.std(dim=0).min() > 0.05


@torch.no_grad()
def test_taken_examples_equal_prepared_ones(family: Family) -> None:
    model = family.adapted()
    inputs, rows = family.encoded(8), torch.tensor([5, 2, 2])
    taken = model.prepare(inputs).take(rows)
    direct = model.prepare({name: tensor[rows] for name, tensor in inputs.items()})
    vectors = _vectors(model, 2)
    torch.testing.assert_close(
        model.logits(taken, vectors), model.logits(direct, vectors), atol=1e-5, rtol=1e-5
    )


def test_gradients_flow_to_every_part_of_the_vector(family: Family) -> None:
    model = family.adapted()
    prepared = model.prepare(family.encoded(5))
    vectors = (0.3 * _vectors(model, 2)).requires_grad_()
    model.logits(prepared, vectors).square().sum().backward()
    for name, part in model.space.split(vectors.grad).items():
        assert (part != 0).any(dim=tuple(range(1, part.ndim))).all(), name
    step = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        ahead, behind = (
            model.logits(prepared, vectors + sign * 1e-2 * step).double().square().sum()
            for sign in (1, -1)
        )
    slope = float((ahead - behind) / 2e-2)
    assert float((vectors.grad * step).sum()) == pytest.approx(slope, rel=0.02)


def test_a_space_of_another_base_is_refused(vit: Family, bert: Family) -> None:
    with pytest.raises(AdapterError, match="the adapter space belongs to another base model"):
        Task(vit.base, bert.space(), vit.inputs).model()


def test_a_head_that_cannot_be_batched_is_refused(bert: Family) -> None:
    model = deepcopy(bert.base.model)
    model.classifier = nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 2))
    base = freeze(model, name="normed", revision="local")
    assert base.layout.head == "classifier.2"
    base = replace(base, layout=replace(base.layout, head="classifier"))
    with pytest.raises(ModelError, match="the head 'classifier' holds more than linear"):
        Task(base, AdapterSpace.of(base, rank=2), bert.inputs).model()
