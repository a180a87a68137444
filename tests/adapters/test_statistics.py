"""Statistics of what enters a base model's linear modules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import Family
from torch import nn

from fedcert.adapters.statistics import count_linears, layer_statistics
from fedcert.errors import AdapterError


def test_they_are_mean_and_deviation_of_all_that_is_no_padding(bert: Family) -> None:
    model, inputs = bert.adapted(), bert.examples(12).inputs.copy()
    inputs[:5, 4:] = 0  # padding
    found = layer_statistics(model, inputs, batch_size=5)
    name, module = next(
        (name, module)
        for name, module in bert.base.model.named_modules()
        if name.startswith(bert.base.layout.layers) and isinstance(module, nn.Linear)
    )
    seen: list[torch.Tensor] = []
    handle = module.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    encoded = bert.inputs.encode(inputs)
    with torch.no_grad():
        bert.base.model(**encoded)
    handle.remove()
    wanted = seen[0][encoded["attention_mask"].bool()].double()
    assert len(found) == 2 * count_linears(bert.base), name
    assert found[0] == pytest.approx(float(wanted.mean()), abs=1e-6)
    assert found[len(found) // 2] == pytest.approx(float(wanted.std()), rel=1e-5)


def test_neither_padding_nor_batches_change_them(family: Family) -> None:
    model, inputs = family.adapted(), family.examples(9).inputs
    whole = layer_statistics(model, inputs)
    assert np.isfinite(whole).all()
    np.testing.assert_allclose(layer_statistics(model, inputs, batch_size=2), whole, atol=1e-6)
    if family.name != "vit":
        longer = np.pad(inputs, ((0, 0), (0, 4)))
        np.testing.assert_allclose(layer_statistics(model, longer), whole, atol=1e-5)


def test_no_hook_stays_behind(bert: Family) -> None:
    layer_statistics(bert.adapted(), bert.examples(3).inputs)
    assert not any(module._forward_pre_hooks for module in bert.base.model.modules())


def test_nothing_has_no_statistics(bert: Family) -> None:
    with pytest.raises(AdapterError, match="no inputs"):
        layer_statistics(bert.adapted(), bert.examples(3).inputs[:0])
