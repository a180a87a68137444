"""Batches that stay within memory hold each example once, and change no result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import Family

from fedcert.adapters import write_peft_adapter
from fedcert.adapters.grouping import batches
from fedcert.randomness import keyed_generator
from fedcert.search import BatchedScorer, batched, exported, exported_wrong


@pytest.mark.parametrize(("budget", "sizes"), [(0, [1] * 5), (1920, [2, 2, 1]), (1e6, [5])])
def test_batches_hold_as_many_examples_as_fit(budget: float, sizes: list[int]) -> None:
    inputs = {"input_ids": torch.arange(10).view(5, 2), "attention_mask": torch.ones(5, 2)}
    found = batches(inputs, width=10, budget=budget)
    assert [len(rows) for rows, _ in found] == sizes
    assert torch.cat([rows for rows, _ in found]).tolist() == [0, 1, 2, 3, 4]
    for rows, batch in found:
        assert torch.equal(batch["input_ids"], inputs["input_ids"][rows])
        assert batch.keys() == inputs.keys()


def test_an_image_counts_by_its_pixels() -> None:
    images = {"pixel_values": torch.zeros(4, 3, 8, 8)}
    found = batches(images, width=10**6, budget=2 * 4 * 12 * 3 * 64)
    assert [len(rows) for rows, _ in found] == [2, 2]


def test_small_batches_score_and_count_alike(
    any_family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, examples = any_family.space(), any_family.examples(9)
    vectors = 0.3 * keyed_generator("grouping").standard_normal((3, space.dimension))
    base = any_family.base
    write_peft_adapter(space, vectors[0], tmp_path, base_name=base.name, base=base)
    model = any_family.adapted()

    def found() -> tuple[np.ndarray, np.ndarray]:
        scores = BatchedScorer(model, margin_tolerance=1e-4).score(vectors, examples)
        wrong = exported_wrong(model.task, tmp_path, examples, margin_tolerance=1e-4)
        return scores.losses, wrong

    whole = found()
    monkeypatch.setattr(batched, "_CACHE_FRIENDLY", 2**12)
    monkeypatch.setattr(exported, "_ACTIVATIONS", 2**12)
    parts = found()
    np.testing.assert_allclose(parts[0], whole[0], rtol=1e-5, atol=1e-5)
    assert np.array_equal(parts[1], whole[1])
