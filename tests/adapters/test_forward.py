"""Running many adapters at once: right, and without a trace on the base model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch
from tiny_models import Family
from torch import nn

from fedcert.adapters import AdaptedModel, AdapterSpace, FinetuneSettings, finetune, forward
from fedcert.errors import AdapterError, ModelError
from fedcert.models.base import freeze, weight_digest


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
    finetune(model, family.examples(6), spec=family.inputs, seed=0, settings=settings)


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
    assert weight_digest(family.base.model) == family.base.digest
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
def test_skipping_the_frozen_layers_changes_nothing(
    any_family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = any_family.adapted(last_layers=1)
    prepared, vectors = model.prepare(any_family.encoded(5)), _vectors(model, 3)
    calls = _count_calls(any_family, monkeypatch)
    skipped = model.logits(prepared, vectors)
    assert calls[:2] == [0, 0]
    monkeypatch.setattr(forward, "_skipping", lambda _layers, _count: nullcontext())
    full = model.logits(prepared, vectors)
    torch.testing.assert_close(skipped, full, atol=1e-5, rtol=1e-5)
    assert calls == [1, 1, 2]


def _count_calls(family: Family, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    layers = family.base.model.get_submodule(family.base.layout.layers)
    calls = [0] * len(layers)

    def counted(index: int, forward: Callable[..., object]) -> Callable[..., object]:
        def run(*args: object, **options: object) -> object:
            calls[index] += 1
            return forward(*args, **options)

        return run

    for index, layer in enumerate(layers):
        monkeypatch.setattr(layer, "forward", counted(index, layer.forward))
    return calls


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
        AdaptedModel(vit.base, bert.space())


def test_a_head_that_cannot_be_batched_is_refused(bert: Family) -> None:
    model = deepcopy(bert.base.model)
    model.classifier = nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 2))
    base = freeze(model, name="normed", revision="local")
    with pytest.raises(ModelError, match="the head 'classifier' holds more than linear"):
        AdaptedModel(base, AdapterSpace.of(base, rank=2))
