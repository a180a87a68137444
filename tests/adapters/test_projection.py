"""Ordinary LoRA adapters enter by projection, with what the space cannot hold reported."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.numpy import load_file, save_file
from tiny_models import Family

from fedcert.adapters import (
    AdapterSpace,
    FinetuneSettings,
    LoraUpdate,
    encode,
    finetune,
    project,
    read_peft_adapter,
)
from fedcert.errors import AdapterError

TARGETS = {"vit": ["q_proj", "v_proj"], "bert": ["query", "value"]}
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def _lora(family: Family, folder: Path, **options: Any) -> dict[str, np.ndarray]:
    """Save an adapter with random weights; return each module's Delta W as PEFT merges it."""
    settings = {
        "target_modules": TARGETS[family.name],
        "modules_to_save": ["classifier"],
        "lora_dropout": 0.1,
    } | options
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = get_peft_model(deepcopy(family.base.model), LoraConfig(**settings))
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                scale = 0.3 if "lora_" in name else 1.0
                parameter.data = scale * torch.randn(parameter.shape)
    model.save_pretrained(folder)
    before = dict(family.base.model.named_parameters())
    merged = dict(model.merge_and_unload().named_parameters())
    return {
        name.removesuffix(".weight"): (merged[name] - before[name]).detach().double().numpy()
        for name in merged
        if name.split(".")[-2] in settings["target_modules"] and name.endswith("weight")
    }


def _nearest(space: AdapterSpace, name: str, delta: np.ndarray) -> np.ndarray:
    """Find R by brute force: least squares over its entries."""
    up, down = (space.basis[f"{name}.{side}"].astype(float) for side in ("up", "down"))
    columns = np.kron(up, down.T)
    core, *_ = np.linalg.lstsq(columns, delta.ravel(), rcond=None)
    return core.reshape(space.rank, space.rank)


@pytest.mark.parametrize("name", ["vit", "bert"])
@pytest.mark.parametrize("rank", [2, 4, 8, 32])
def test_any_rank_projects_as_brute_force_does(
    name: str, rank: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    family: Family = request.getfixturevalue(name)
    own = TARGETS[name][0]
    patterns = {
        # A regular expression, a whole name, and what PEFT does not take for a match.
        "alpha_pattern": {rf".*\.1\..*{own}": 5, TARGETS[name][1]: 20, own[1:]: 1000},
        "rank_pattern": {own: 2 * rank},
    }
    deltas = _lora(family, tmp_path, r=rank, lora_alpha=11, **patterns)
    space = family.space(rank=4, last_layers=2)
    projection = project(space, read_peft_adapter(tmp_path, head_module="classifier"))
    parts = encode(space, projection.vector)
    lost = total = 0.0
    assert projection.residuals.keys() == deltas.keys()
    for module, delta in deltas.items():
        kept = np.zeros_like(delta)
        if f"{module}.R" in parts:
            core = _nearest(space, module, delta)
            np.testing.assert_allclose(parts[f"{module}.R"], core, atol=1e-4)
            kept = space.basis[f"{module}.up"] @ core @ space.basis[f"{module}.down"]
        missing, size = np.sum((delta - kept) ** 2), np.sum(delta**2)
        assert projection.residuals[module] == pytest.approx((missing / size) ** 0.5, abs=1e-5)
        lost, total = lost + missing, total + size
    assert projection.residual == pytest.approx((lost / total) ** 0.5, abs=1e-5)
    head = load_file(tmp_path / WEIGHTS)["base_model.model.classifier.weight"]
    np.testing.assert_array_equal(parts["classifier.weight"], head)


def test_modules_outside_the_space_are_lost_in_full(vit: Family, tmp_path: Path) -> None:
    deltas = _lora(vit, tmp_path, r=2)
    space = vit.space(last_layers=1)
    projection = project(space, read_peft_adapter(tmp_path, head_module="classifier"))
    outside = {name for name in deltas if ".layers.2." not in name}
    assert len(outside) == 4
    assert {n for n, r in projection.residuals.items() if r == 1.0} == outside


def test_a_module_left_alone_gets_a_zero_core(vit: Family, tmp_path: Path) -> None:
    _lora(vit, tmp_path, r=2, target_modules=["q_proj"])
    space = vit.space(last_layers=1)
    update = read_peft_adapter(tmp_path, head_module="classifier")
    parts = encode(space, project(space, update).vector)
    cores = {name.split(".")[-2]: part for name, part in parts.items() if name.endswith("R")}
    assert not cores["v_proj"].any()
    assert cores["q_proj"].any()


def test_a_trained_adapter_as_ordinary_lora_comes_back(vit: Family) -> None:
    """With other factors of the same product, and another scaling."""
    model = vit.adapted()
    settings = FinetuneSettings(steps=20)
    trained = finetune(model, vit.examples(30), seed=0, settings=settings)
    space, parts = model.space, encode(model.space, trained.vector)
    G = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 3.0]])
    factors = {}
    for target in space.targets:
        up, down = (space.basis[f"{target.name}.{side}"] for side in ("up", "down"))
        B = up @ parts[f"{target.name}.R"] @ G
        factors[target.name] = (np.linalg.solve(G, down), B / 4.0, 4.0)
    head = {tensor.name: parts[tensor.name] for tensor in space.head}
    projection = project(space, LoraUpdate(factors, head))
    np.testing.assert_allclose(projection.vector, trained.vector, atol=1e-5)
    assert projection.residual < 1e-6


def test_an_update_outside_the_space_has_the_full_residual(vit: Family) -> None:
    space = vit.space(rank=3)
    factors = {}
    for target in space.targets:
        # Orthogonal to all of the space's left directions.
        left = np.linalg.svd(space.basis[f"{target.name}.up"])[0][:, 3:5]
        factors[target.name] = (np.ones((2, target.in_features)), left, 1.0)
    projection = project(space, LoraUpdate(factors, _head(space)))
    assert projection.residual == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(projection.vector[: 4 * 9], 0, atol=1e-5)


def _head(space: AdapterSpace) -> dict[str, np.ndarray]:
    return {tensor.name: np.ones(tensor.shape) for tensor in space.head}


def test_an_empty_update_loses_nothing(vit: Family) -> None:
    space = vit.space()
    projection = project(space, LoraUpdate({}, _head(space)))
    assert projection.residual == 0.0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"use_rslora": True}, "use_rslora"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        ({"init_lora_weights": "olora"}, "init_lora_weights='olora'"),
    ],
)
def test_what_is_not_plain_lora_is_refused(
    vit: Family, tmp_path: Path, options: dict[str, Any], named: str
) -> None:
    _lora(vit, tmp_path, r=2, **options)
    text = f"uses {named}, which is not a plain LoRA update; merge it"
    with pytest.raises(AdapterError, match=text):
        read_peft_adapter(tmp_path, head_module="classifier")


@pytest.mark.parametrize("start", [True, False, "gaussian", "orthogonal"])
def test_other_starts_are_plain_lora(vit: Family, tmp_path: Path, start: object) -> None:
    _lora(vit, tmp_path, r=2, init_lora_weights=start)
    assert len(read_peft_adapter(tmp_path, head_module="classifier").factors) == 6


def test_a_missing_head_says_how_to_train_it(vit: Family, tmp_path: Path) -> None:
    _lora(vit, tmp_path, r=2, modules_to_save=None)
    update = read_peft_adapter(tmp_path, head_module="classifier")
    text = r"no 'classifier.weight'; train it with modules_to_save=\['classifier'\]"
    with pytest.raises(AdapterError, match=text):
        project(vit.space(), update)


def test_bias_terms_are_refused(bert: Family, tmp_path: Path) -> None:
    _lora(bert, tmp_path, r=2, bias="lora_only")
    with pytest.raises(AdapterError, match=r"unexpected tensor .*bias"):
        read_peft_adapter(tmp_path, head_module="classifier")


def test_wrong_shapes_and_values_are_refused(vit: Family) -> None:
    space = vit.space()
    name, head = space.targets[0].name, _head(space)
    A, B = np.ones((2, 16)), np.ones((16, 2))

    def refused(text: str, factors: tuple[np.ndarray, np.ndarray], **changed: Any) -> None:
        with pytest.raises(AdapterError, match=text):
            project(space, LoraUpdate({name: (*factors, 1.0)}, head | changed))

    refused(r"shapes \(2, 16\) and \(16, 3\); A must be", (A, np.ones((16, 3))))
    refused(r"shape \(16, 15\); it must be \(16, 16\)", (A[:, :15], B))
    refused(r"'classifier.bias' has shape \(3,\)", (A, B), **{"classifier.bias": np.ones(3)})
    refused("NaN or an infinity", (A * np.nan, B))
    refused("NaN or an infinity", (A, B), **{"classifier.bias": np.array([0, np.inf])})


def _config(folder: Path, **changes: Any) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _without_one_factor(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors.pop(next(name for name in tensors if "lora_B" in name))
    save_file(tensors, folder / WEIGHTS)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda f: (f / CONFIG).unlink(), "no adapter_config.json; this is not an adapter"),
        (lambda f: (f / CONFIG).write_text("{"), "adapter_config.json: damaged, not JSON"),
        (lambda f: (f / CONFIG).write_text("[]"), "damaged, not a JSON object"),
        (lambda f: _config(f, peft_type="LOHA"), "'LOHA' is not a LoRA adapter"),
        (lambda f: (f / WEIGHTS).unlink(), "no adapter_model.safetensors; this is not"),
        (lambda f: (f / WEIGHTS).write_bytes(b"\1" * 20), "not a safetensors file"),
        (_without_one_factor, "has only one of its two LoRA factors"),
    ],
)
def test_a_damaged_folder_is_refused(
    vit: Family, tmp_path: Path, damage: Any, text: str
) -> None:
    _lora(vit, tmp_path, r=2)
    damage(tmp_path)
    with pytest.raises(AdapterError, match=text):
        read_peft_adapter(tmp_path, head_module="classifier")
