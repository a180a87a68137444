"""The batched scorer equals the plain loop over PEFT adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import Family

from fedcert.adapters import AdaptedModel, Task, write_peft_adapter
from fedcert.models.identity import weight_digest
from fedcert.randomness import keyed_generator
from fedcert.search import BatchedScorer, ReferenceScorer, exported_wrong

TOLERANCE = 1e-4


def _batched(family: Family, model: AdaptedModel, **options: float) -> BatchedScorer:
    options = {"margin_tolerance": TOLERANCE} | options
    return BatchedScorer(model, **options)


def _vectors(model: AdaptedModel, count: int, *, seed: int = 0) -> np.ndarray:
    generator = keyed_generator("candidates", seed)
    return generator.standard_normal((count, model.space.dimension))


@pytest.mark.parametrize("last_layers", [1, 2, 3])
def test_batched_equals_reference(any_family: Family, last_layers: int) -> None:
    model = any_family.adapted(last_layers=last_layers)
    reference = ReferenceScorer(
        Task(any_family.base, model.space, any_family.inputs), margin_tolerance=TOLERANCE
    )
    batched = _batched(any_family, model)
    for case in range(10):
        examples = any_family.examples(4 + case, seed=case)
        vectors = _vectors(model, 6, seed=case)
        ours, theirs = (s.score(vectors, examples) for s in (batched, reference))
        np.testing.assert_allclose(ours.losses, theirs.losses, rtol=0, atol=1e-4)
        np.testing.assert_array_equal(ours.wrong, theirs.wrong)
        assert ours.best()[:2] == theirs.best()[:2]


def test_the_reference_does_not_mix_up_candidates(vit: Family) -> None:
    """PEFT keeps the old weights where keys do not match; each candidate must load."""
    model, examples = vit.adapted(), vit.examples(6)
    scorer = ReferenceScorer(
        Task(vit.base, model.space, vit.inputs), margin_tolerance=TOLERANCE
    )
    vectors = _vectors(model, 3)
    losses = scorer.score(vectors, examples).losses
    turned = scorer.score(vectors[::-1], examples).losses[::-1]
    np.testing.assert_array_equal(turned, losses)
    assert np.abs(losses[0] - losses[1]).min() > 1e-3


@pytest.mark.parametrize(("memory_mib", "at_once"), [(1e-6, 1), (0.05, None), (256, 23)])
def test_the_memory_budget_decides_nothing(
    family: Family, memory_mib: float, at_once: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, examples = family.adapted(), family.examples(9)
    vectors, counts, sizes = _vectors(model, 23), [], []
    expected = _batched(family, model).score(vectors, examples)
    real = AdaptedModel.logits

    def logits(model: AdaptedModel, prepared: Any, part: torch.Tensor) -> torch.Tensor:
        sizes.append(len(part))
        return real(model, prepared, part)

    monkeypatch.setattr(AdaptedModel, "logits", logits)
    scorer = _batched(family, model, memory_mib=memory_mib)
    scores = scorer.score(vectors, examples, on_scored=counts.append)
    np.testing.assert_allclose(scores.losses, expected.losses, rtol=1e-5, atol=1e-5)
    assert scores.best()[:2] == expected.best()[:2]
    assert sum(counts) == 23
    assert max(sizes) == at_once or at_once is None


def test_scoring_other_examples_after_the_first_ones(family: Family) -> None:
    """Prepared inputs are kept between calls; they must be those of the call."""
    model = family.adapted()
    vectors, scorer = _vectors(model, 3), _batched(family, model)
    for seed in (1, 2, 1):
        examples = family.examples(6, seed=seed)
        expected = _batched(family, model).score(vectors, examples).losses
        np.testing.assert_array_equal(scorer.score(vectors, examples).losses, expected)


def test_predictions_are_the_largest_logits(vit: Family) -> None:
    model, examples = vit.adapted(), vit.examples(12)
    scorer, vectors = _batched(vit, model, margin_tolerance=0.0), _vectors(model, 5)
    predicted = scorer.predict(vectors, examples.inputs)
    wrong = scorer.score(vectors, examples).wrong
    np.testing.assert_array_equal(predicted != examples.labels, wrong)


@pytest.mark.parametrize("tolerance", [0.0, 0.5, 1e9])
def test_the_margin_tolerance_turns_close_calls_into_errors(
    vit: Family, tolerance: float
) -> None:
    model, examples = vit.adapted(), vit.examples(20)
    vectors = _vectors(model, 10)
    scores = _batched(vit, model, margin_tolerance=tolerance).score(vectors, examples)
    with torch.no_grad():
        prepared = model.prepare(vit.inputs.encode(examples.inputs))
        logits = model.logits(prepared, torch.from_numpy(vectors).float()).numpy()
    sign = np.where(examples.labels == 1, 1, -1)
    margins = sign * (logits[..., 1] - logits[..., 0])
    np.testing.assert_array_equal(scores.wrong, margins <= tolerance)
    close = np.mean((margins > 0) & (margins <= tolerance))
    assert close > 0.01 or tolerance == 0


def test_a_tie_is_an_error(family: Family) -> None:
    """The zero adapter has equal logits: it has decided nothing."""
    model, examples = family.adapted(), family.examples(6)
    scorer = _batched(family, model, margin_tolerance=0.0)
    assert scorer.score(np.zeros((1, model.space.dimension)), examples).wrong.all()


def test_a_candidate_that_overflows_only_makes_errors(vit: Family) -> None:
    model, examples = vit.adapted(), vit.examples(6)
    vectors = _vectors(model, 3)
    vectors[1] *= 1e38
    scores = _batched(vit, model).score(vectors, examples)
    assert scores.wrong[1].all()
    assert np.isinf(scores.losses[1]).all()
    assert np.isfinite(scores.losses[[0, 2]]).all()
    assert scores.best()[0] != 1


def test_an_error_in_a_callback_leaves_no_trace(vit: Family) -> None:
    def stop(_count: int) -> None:
        raise RuntimeError("stop")

    model = vit.adapted()
    with pytest.raises(RuntimeError, match="stop"):
        _batched(vit, model).score(_vectors(model, 2), vit.examples(4), on_scored=stop)
    assert not torch.is_inference_mode_enabled()


def test_exported_errors_equal_the_scored_ones(any_family: Family, tmp_path: Path) -> None:
    model, examples = any_family.adapted(), any_family.examples(15)
    vectors = _vectors(model, 3)
    expected = _batched(any_family, model).score(vectors, examples).wrong
    for vector, wrong in zip(vectors, expected, strict=True):
        write_peft_adapter(model.space, vector, tmp_path / "a", base_name="base")
        counted = exported_wrong(
            Task(any_family.base, any_family.space(), any_family.inputs),
            tmp_path / "a",
            examples,
            margin_tolerance=TOLERANCE,
        )
        np.testing.assert_array_equal(counted, wrong)
    assert weight_digest(any_family.base.model) == any_family.base.weights
    assert 0 < expected.mean() < 1


def test_exported_errors_follow_the_tolerance(vit: Family, tmp_path: Path) -> None:
    model, examples = vit.adapted(), vit.examples(15)
    write_peft_adapter(model.space, _vectors(model, 1)[0], tmp_path / "a", base_name="base")
    counts = [
        exported_wrong(
            Task(vit.base, vit.space(), vit.inputs),
            tmp_path / "a",
            examples,
            margin_tolerance=tolerance,
        ).sum()
        for tolerance in (0.0, 1e9)
    ]
    assert counts[0] < counts[1] == 15
