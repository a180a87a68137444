"""An adapter leaves as an ordinary PEFT adapter: stock PEFT gives the same logits."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from tiny_models import Family

from fedcert.adapters import (
    AdapterSpace,
    adapter_tensors,
    exported_digest,
    project,
    read_peft_adapter,
    write_peft_adapter,
)
from fedcert.adapters.exported_model import exported_model
from fedcert.adapters.peft_format import foreign_settings
from fedcert.canonical import digest_tensors
from fedcert.errors import AdapterError
from fedcert.randomness import keyed_generator


def _vector(space: AdapterSpace, seed: int = 0) -> np.ndarray:
    return keyed_generator("export", seed).standard_normal(space.dimension)


@torch.no_grad()
@pytest.mark.parametrize("last_layers", [1, 3])
def test_stock_peft_gives_the_same_logits(
    any_family: Family, last_layers: int, tmp_path: Path
) -> None:
    model = any_family.adapted(last_layers=last_layers)
    vector = _vector(model.space)
    write_peft_adapter(model.space, vector, tmp_path / "adapter", base_name="base")
    inputs = any_family.encoded(6)
    ours = model.logits(model.prepare(inputs), torch.from_numpy(vector).float()[None])[0]
    base = any_family.fresh().model
    plain = base(**inputs).logits
    stock = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    logits = stock(**inputs).logits
    assert float((logits - plain).abs().max()) > 0.1
    torch.testing.assert_close(ours, logits, atol=1e-5, rtol=1e-5)


def test_loading_an_export_warns_of_nothing(any_family: Family, tmp_path: Path) -> None:
    model = any_family.adapted(last_layers=1)
    write_peft_adapter(model.space, _vector(model.space), tmp_path / "adapter", base_name="b")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        exported_model(any_family.base, tmp_path / "adapter")
    assert [str(each.message) for each in said if each.category is FutureWarning] == []


def test_a_space_from_its_saved_form_exports_the_same(vit: Family) -> None:
    space = vit.space()
    again = AdapterSpace.from_config(space.to_config(), space.basis)
    tensors = adapter_tensors(space, _vector(space))
    assert digest_tensors(adapter_tensors(again, _vector(space))) == digest_tensors(tensors)


def test_the_digest_is_that_of_the_folder(family: Family, tmp_path: Path) -> None:
    space = family.space()
    digest = write_peft_adapter(space, _vector(space), tmp_path / "a", base_name="base")
    assert exported_digest(tmp_path / "a") == digest
    write_peft_adapter(space, _vector(space, 1), tmp_path / "a", base_name="base")
    assert exported_digest(tmp_path / "a") != digest


def test_what_was_exported_comes_back(family: Family, tmp_path: Path) -> None:
    space = family.space()
    vector = _vector(space)
    write_peft_adapter(space, vector, tmp_path / "a", base_name="base")
    update = read_peft_adapter(tmp_path / "a", head_module=space.head_module)
    projection = project(space, update)
    np.testing.assert_allclose(projection.vector, vector, atol=2e-5)
    assert projection.residual < 1e-6
    assert max(projection.residuals.values()) < 1e-6


def _edit(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"base_model_name_or_path": "elsewhere", "peft_version": "9"}, []),
        ({"lora_alpha": 4}, ["lora_alpha"]),
        ({"use_rslora": True}, ["use_rslora"]),
        ({"alpha_pattern": {"q_proj": 9}}, ["alpha_pattern"]),
        ({"modules_to_save": None}, ["modules_to_save"]),
        ({"target_modules": ["v_proj"]}, ["target_modules"]),
        ({"setting_of_a_later_peft": 1}, ["setting_of_a_later_peft"]),
        ({"setting_of_a_later_peft": None}, []),
        ({"exclude_modules": [{}, 1]}, ["exclude_modules"]),
    ],
)
def test_settings_that_change_the_adapter_are_named(
    vit: Family, tmp_path: Path, changes: dict[str, Any], found: list[str]
) -> None:
    space = vit.space()
    write_peft_adapter(space, _vector(space), tmp_path / "a", base_name="base")
    _edit(tmp_path / "a", **changes)
    assert foreign_settings(space, tmp_path / "a") == found


def _in_precision(folder: Path, dtype: torch.dtype) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    save_file({name: tensor.to(dtype) for name, tensor in load_file(path).items()}, path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_an_adapter_in_another_precision_is_read(
    vit: Family, tmp_path: Path, dtype: torch.dtype
) -> None:
    space, folder = vit.space(), tmp_path / "adapter"
    digest = write_peft_adapter(space, _vector(space), folder, base_name="base")
    _in_precision(folder, dtype)
    vector = project(space, read_peft_adapter(folder, head_module=space.head_module)).vector
    np.testing.assert_allclose(vector, _vector(space), atol=0.1)
    assert exported_digest(folder) != digest  # a certificate speaks of float32


def test_numbers_that_are_no_weights_are_refused(vit: Family, tmp_path: Path) -> None:
    space, folder = vit.space(), tmp_path / "adapter"
    write_peft_adapter(space, _vector(space), folder, base_name="base")
    _in_precision(folder, torch.float8_e4m3fn)
    for read in (exported_digest, lambda f: read_peft_adapter(f, head_module="classifier")):
        with pytest.raises(AdapterError, match="float8_e4m3fn, which are not read; save the"):
            read(folder)


def test_pickled_weights_are_to_be_converted(vit: Family, tmp_path: Path) -> None:
    space, folder = vit.space(), tmp_path / "adapter"
    digest = write_peft_adapter(space, _vector(space), folder, base_name="base")
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "adapter_model.safetensors")
    torch.save(tensors, folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(
        AdapterError, match=r"adapter_model.bin, which can run code.*convert it"
    ):
        exported_digest(folder)
    # What the message says to do.
    tensors = torch.load(folder / "adapter_model.bin", weights_only=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    assert exported_digest(folder) == digest
