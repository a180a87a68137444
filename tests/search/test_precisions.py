"""Ranking in bfloat16, int8 base models, compiled attention: what they may change."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from personalization.conftest import CANDIDATES, KEY, make_bundle, solvable_examples
from scipy.stats import spearmanr
from tiny_models import Family
from tiny_text import save_tiny_backbone
from torch import nn

from fedcert.adapters import (
    AdaptedModel,
    AdapterSpace,
    FinetuneSettings,
    Task,
    finetune,
    write_peft_adapter,
)
from fedcert.adapters.compiling import CompiledOrEager
from fedcert.errors import ModelError, SettingsError
from fedcert.models import BaseModel, load_base_model, with_task_head
from fedcert.models.identity import weight_digest
from fedcert.models.int8 import Int8Linear
from fedcert.personalization import personalize
from fedcert.randomness import keyed_generator
from fedcert.search import BatchedScorer, ReferenceScorer, exported_wrong
from fedcert.verification import check_data


def _vectors(model: AdaptedModel, count: int) -> np.ndarray:
    generator = keyed_generator("precisions")
    return 0.5 * generator.standard_normal((count, model.space.dimension))


# --- bfloat16 ---


def test_bfloat16_ranks_nearly_as_float32_does(any_family: Family) -> None:
    model, examples = any_family.adapted(last_layers=1), any_family.examples(24)
    vectors = _vectors(model, 60)
    exact = BatchedScorer(model, margin_tolerance=1e-4)
    low = BatchedScorer(model, margin_tolerance=1e-4, precision="bfloat16")
    losses = [scorer.score(vectors, examples).losses.mean(axis=1) for scorer in (exact, low)]
    assert spearmanr(*losses).statistic > 0.99
    assert not np.array_equal(*losses)  # it did run in another precision
    assert {p.dtype for p in low.model.base.model.parameters()} == {torch.bfloat16}
    assert low.model.top_only  # the reduction survives
    assert weight_digest(any_family.base.model) == any_family.base.weights


def test_a_winner_of_bfloat16_is_counted_in_float32(vit: Family, tmp_path: Path) -> None:
    bundle = make_bundle(vit)
    model = Task(vit.base, bundle.space, vit.inputs).model()
    examples = solvable_examples(vit, bundle, model, 24)
    result = personalize(
        bundle, model, examples, client="c", key=KEY, folder=tmp_path, precision="bfloat16"
    )
    certificate = result.certificate
    vector = bundle.prior.sample(certificate.candidate.seed, start=0, count=CANDIDATES)
    tolerance = certificate.recipe.margin_tolerance
    exact = BatchedScorer(model, margin_tolerance=tolerance)
    errors = exact.score(vector, examples).wrong.sum(axis=1)
    assert certificate.errors == errors[certificate.candidate.index]
    assert certificate.errors <= errors.min() + 2  # ranked well, if not perfectly
    checks = check_data(certificate, bundle, vit.fresh(), result.adapter, examples).checks
    assert all(check.passed for check in checks)


def test_other_precisions_are_refused(vit: Family) -> None:
    with pytest.raises(SettingsError, match="choose float32 or bfloat16"):
        BatchedScorer(vit.adapted(), margin_tolerance=0.0, precision="int3")


# --- int8 ---


@pytest.fixture(params=["vit", "bert", "llama"])
def quantized(request: pytest.FixtureRequest) -> tuple[Family, BaseModel]:
    family: Family = request.getfixturevalue(request.param)
    base = load_base_model(str(family.folder), num_labels=2, quantization="int8")
    return family, base


def test_int8_is_another_base_model(quantized: tuple[Family, BaseModel]) -> None:
    family, base = quantized
    assert base.digest != family.base.digest
    again = load_base_model(str(family.folder), num_labels=2, quantization="int8")
    assert base.digest == again.digest
    layers = base.model.get_submodule(base.layout.layers)
    assert all(type(m) is Int8Linear for m in layers.modules() if isinstance(m, nn.Linear))
    inputs = family.encoded(20)
    with torch.no_grad():
        exact, low = (b.model(**inputs).logits for b in (family.base, base))
    assert 0 < (exact - low).abs().max() < 0.1 * exact.abs().max()


def test_int8_weights_are_within_half_a_level() -> None:
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(7, 5)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(5, 7, generator=generator))
        linear.weight[3] = 0.0
        linear.weight[4] *= 1e-3  # a scale per output channel, or this one would vanish
    quantized = Int8Linear(linear)
    error = (quantized.weight - linear.weight).abs()
    assert (error <= linear.weight.abs().amax(dim=1, keepdim=True) / 254 + 1e-7).all()
    x = torch.randn(3, 7, generator=generator)
    expected = nn.functional.linear(x, quantized.weight, linear.bias)
    torch.testing.assert_close(quantized(x), expected)


def test_an_int8_channel_does_not_depend_on_the_others() -> None:
    linear = nn.Linear(7, 150)  # more channels than are made at a time
    with torch.no_grad():
        linear.weight.copy_(torch.randn(150, 7, generator=torch.Generator().manual_seed(0)))
    together = Int8Linear(linear)
    for place in (0, 63, 64, 149):
        alone = nn.Linear(7, 1)
        alone.weight = nn.Parameter(linear.weight[place : place + 1].detach())
        made = Int8Linear(alone)
        assert torch.equal(made.levels, together.levels[place : place + 1])
        assert torch.equal(made.scale, together.scale[place : place + 1])


def test_an_example_does_not_depend_on_its_batch(quantized: tuple[Family, BaseModel]) -> None:
    """A scale over the batch would: here one neighbor is a hundred times as large."""
    family, base = quantized
    inputs = family.encoded(6)
    hidden: list[torch.Tensor] = []
    first = base.model.get_submodule(f"{base.layout.layers}.0")
    scale = torch.ones(6, 1, 1)

    def enlarge(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[object, ...]:
        hidden.append(args[0])
        return (args[0] * scale[: len(args[0])], *args[1:])

    handle = first.register_forward_pre_hook(enlarge)
    try:
        with torch.no_grad():
            usual = base.model(**inputs).logits
            scale[5] = 100.0
            beside_a_giant = base.model(**inputs).logits
            scale[:] = 1.0
            alone = torch.cat(
                [
                    base.model(**{k: v[row : row + 1] for k, v in inputs.items()}).logits
                    for row in range(6)
                ]
            )
    finally:
        handle.remove()
    torch.testing.assert_close(beside_a_giant[:5], usual[:5], atol=1e-5, rtol=0)
    torch.testing.assert_close(alone, usual, atol=1e-5, rtol=0)
    assert (beside_a_giant[5] - usual[5]).abs().max() > 1e-3


def test_adapters_of_an_int8_model_run_as_with_peft(
    quantized: tuple[Family, BaseModel], tmp_path: Path
) -> None:
    family, base = quantized
    space, examples = AdapterSpace.of(base, rank=3, last_layers=2), family.examples(15)
    model = Task(base, space, family.inputs).model()
    settings = FinetuneSettings(steps=30)
    result = finetune(model, examples, seed=0, settings=settings)
    assert result.loss < 0.6
    vectors = np.stack([result.vector, *_vectors(model, 2)]).astype(np.float64)
    batched = BatchedScorer(model, margin_tolerance=1e-4)
    stock = ReferenceScorer(Task(base, space, family.inputs), margin_tolerance=1e-4)
    ours, theirs = (s.score(vectors, examples) for s in (batched, stock))
    np.testing.assert_allclose(ours.losses, theirs.losses, atol=1e-4)
    write_peft_adapter(space, vectors[1], tmp_path / "a", base_name="base")
    wrong = exported_wrong(
        Task(base, space, family.inputs), tmp_path / "a", examples, margin_tolerance=1e-4
    )
    np.testing.assert_array_equal(wrong, ours.wrong[1])
    assert weight_digest(base.model) == base.weights


def test_a_folder_says_how_it_is_to_be_loaded(tmp_path: Path) -> None:
    source = save_tiny_backbone(tmp_path / "source", "bert")
    plain, low = (
        load_base_model(str(with_task_head(source, ["a", "b"], quantization=q)), num_labels=2)
        for q in ("none", "int8")
    )
    assert plain.name != low.name
    assert any(isinstance(module, Int8Linear) for module in low.model.modules())
    again = load_base_model(low.name, num_labels=2, quantization="none")
    assert again.digest == plain.digest
    with pytest.raises(ModelError, match="choose none or int8"):
        with_task_head(source, ["a", "b"], quantization="int3")


# --- torch.compile ---


@pytest.mark.slow
@pytest.mark.parametrize("last_layers", [1, 2])
def test_compiled_attention_gives_the_same_scores(bert: Family, last_layers: int) -> None:
    model = bert.adapted(last_layers=last_layers)
    usual = BatchedScorer(bert.adapted(last_layers=last_layers), margin_tolerance=0)
    compiled = BatchedScorer(model, margin_tolerance=0, compile_stacked=True)
    for count, seed in ((6, 0), (9, 1), (1, 2)):
        examples, vectors = bert.examples(count, seed=seed), _vectors(model, 5 * count)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="nothing is compiled")
            ours, theirs = (s.score(vectors, examples).losses for s in (compiled, usual))
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_where_compiling_fails_the_function_runs_as_it_is(
    bert: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_function: object, **_options: object) -> object:
        def call(*_args: object) -> torch.Tensor:
            raise RuntimeError("no C++ compiler\nand more")

        return call

    monkeypatch.setattr(torch, "compile", failing)
    model, examples = bert.adapted(last_layers=1), bert.examples(5)
    vectors = _vectors(model, 3)
    expected = BatchedScorer(model, margin_tolerance=0).score(vectors, examples)
    scorer = BatchedScorer(model, margin_tolerance=0, compile_stacked=True)
    with pytest.warns(UserWarning, match="nothing is compiled: no C\\+\\+ compiler$"):
        found = scorer.score(vectors, examples).losses
    np.testing.assert_array_equal(found, expected.losses)
    # It is tried once.
    np.testing.assert_array_equal(scorer.score(vectors, examples).losses, expected.losses)


def test_an_error_of_the_function_itself_comes_up() -> None:
    def failing(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("my own")

    function = CompiledOrEager(failing)
    function._compiled = failing
    with pytest.raises(RuntimeError, match="my own"):
        function(torch.ones(1))
