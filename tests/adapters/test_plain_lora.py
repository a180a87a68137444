"""Ordinary LoRA of any rank, trained without PEFT and equal to what PEFT makes of it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import Family
from torch.nn.functional import cross_entropy

from fedcert.adapters import FinetuneSettings, Task, project
from fedcert.adapters.plain_lora import ALPHA, LoraResult, finetune_lora
from fedcert.data import Examples
from fedcert.errors import AdapterError

SETTINGS = FinetuneSettings(steps=8, learning_rate=0.05)


def _train(family: Family, examples: Examples, rank: int, seed: int = 0) -> LoraResult:
    model = Task(family.base, family.space(rank=2, last_layers=2), family.inputs).model()
    return finetune_lora(model, examples, rank=rank, seed=seed, settings=SETTINGS)


def _peft(family: Family, result: LoraResult, rank: int) -> Any:
    """Load the factors into a stock PEFT model."""
    names = list(result.update.factors)
    config = LoraConfig(
        r=rank, lora_alpha=ALPHA, target_modules=names, modules_to_save=["classifier"]
    )
    model = get_peft_model(deepcopy(family.base.model), config)
    state = dict(model.named_parameters())
    with torch.no_grad():
        for name, (down, up, _) in result.update.factors.items():
            prefix = f"base_model.model.{name}"
            state[f"{prefix}.lora_A.default.weight"].copy_(torch.from_numpy(down))
            state[f"{prefix}.lora_B.default.weight"].copy_(torch.from_numpy(up))
        for name, values in result.update.head.items():
            module, _, leaf = name.rpartition(".")
            key = f"base_model.model.{module}.modules_to_save.default.{leaf}"
            state[key].copy_(torch.from_numpy(values))
    return model.eval()


@pytest.mark.parametrize("name", ["vit", "bert"])
@pytest.mark.parametrize("rank", [1, 4])
def test_stock_peft_gets_the_same_loss(
    name: str, rank: int, request: pytest.FixtureRequest
) -> None:
    family: Family = request.getfixturevalue(name)
    examples = family.examples(24, seed=1)
    result = _train(family, examples, rank)
    for down, up, scaling in result.update.factors.values():
        assert (down.shape[0], up.shape[1], scaling) == (rank, rank, ALPHA / rank)
        assert np.abs(up).max() > 0  # it was trained
    with torch.no_grad():
        logits = _peft(family, result, rank)(**family.inputs.encode(examples.inputs)).logits
    loss = float(cross_entropy(logits, torch.from_numpy(examples.labels)))
    assert loss == pytest.approx(result.loss, abs=1e-4)


def test_training_learns_and_depends_on_the_seed_alone(vit: Family) -> None:
    examples = vit.examples(24, seed=1)
    first, again, other = (_train(vit, examples, 2, seed) for seed in (0, 0, 1))
    assert first.loss < np.log(2)
    for name, factors in first.update.factors.items():
        for ours, theirs in zip(factors, again.update.factors[name], strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert not np.array_equal(factors[0], other.update.factors[name][0])


def test_a_narrow_space_loses_some_of_it(vit: Family) -> None:
    space = vit.space(rank=2, last_layers=2)
    projection = project(space, _train(vit, vit.examples(24, seed=1), 2).update)
    assert 0 < projection.lost < 1
    assert projection.lost == pytest.approx(projection.residual**2)


def test_a_rank_above_the_modules_is_refused(vit: Family) -> None:
    with pytest.raises(AdapterError, match=r"LoRA rank 1000 does not fit .*matrix"):
        _train(vit, vit.examples(8, seed=1), 1000)
