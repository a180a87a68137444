"""The trunk: averaging is exact, merging equals computing with it, and every machine agrees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models.tiny_encoders import NAMES, save_sentence_encoder
from tiny_models import Family
from tiny_text import GOOD

from fedcert.adapters import AdapterSpace, FinetuneSettings, Task
from fedcert.data import Examples, TextInputs
from fedcert.errors import ModelError, ProtocolError
from fedcert.models import load_base_model, with_label_names
from fedcert.models.base import BaseModel
from fedcert.randomness import keyed_generator
from fedcert.settings.sections import WarmStartSettings
from fedcert.warm_start import (
    Trunk,
    TrunkTensors,
    TrunkTraining,
    learning,
    local_round,
    merge,
    merged_folder,
    trunk_part,
)

TRAINING = TrunkTraining(
    personal=FinetuneSettings(steps=3, batch_size=16), steps=4, batch_size=8, total=8
)


def some(trunk: Trunk, seed: int = 0) -> TrunkTensors:
    generator = keyed_generator("some trunk", seed)
    return {
        name: (0.3 * generator.standard_normal(shape)).astype(np.float32)
        for name, shape in trunk.shapes().items()
    }


def logits(base: BaseModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = base.model(**inputs).logits
    return found


def tensors(arrays: TrunkTensors) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def test_a_merged_base_model_computes_what_the_trunk_added(
    any_family: Family, tmp_path: Path
) -> None:
    base, inputs = any_family.fresh(), any_family.encoded(6)
    trunk = Trunk.of(base, rank=2, seed=1)
    arrays = some(trunk)
    with trunk.installed(base, tensors(arrays)):
        added = logits(base, inputs)
    assert base.digest == any_family.fresh().digest
    folder, digest = merge(any_family.folder, trunk, arrays, tmp_path, about={"rounds": 1})
    merged = load_base_model(str(folder), num_labels=2)
    assert (folder, merged.digest) == (merged_folder(tmp_path, digest), digest)
    plain = logits(base, inputs)
    torch.testing.assert_close(logits(merged, inputs), added, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(plain, added, atol=1e-3)


def test_averaging_b_averages_the_updates(bert: Family) -> None:
    trunk = Trunk.of(bert.base, rank=2, seed=0)
    one, two = some(trunk, 1), some(trunk, 2)
    for target in trunk.targets:
        down = trunk.frozen(target).astype(np.float64)
        mean = (one[target.name].astype(np.float64) + two[target.name]) / 2 @ down
        apart = (one[target.name] @ down + two[target.name] @ down) / 2
        np.testing.assert_allclose(mean, apart, atol=1e-12)


def test_a_node_that_would_make_another_base_model_says_so(
    bert: Family, tmp_path: Path
) -> None:
    trunk = Trunk.of(bert.base, rank=2, seed=0)
    with pytest.raises(ModelError, match="copy the server's folder here"):
        merge(bert.folder, trunk, some(trunk), tmp_path, about={}, digest="0" * 64)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ModelError, match="other weights or another configuration"):
        merge(
            bert.folder, replace(trunk, base_digest="1" * 64), some(trunk), tmp_path, about={}
        )
    with pytest.raises(ModelError, match="no digest"):
        merged_folder(tmp_path, "../" * 20 + "etc")


def test_a_trunk_that_is_none_is_refused(bert: Family) -> None:
    trunk = Trunk.of(bert.base, rank=2, seed=0)
    assert Trunk.from_config(trunk.to_config()) == trunk
    arrays: dict[str, Any] = some(trunk)
    name = next(iter(arrays))
    for wrong in (
        {name: arrays[name]},
        arrays | {name: arrays[name].T},
        arrays | {name: arrays[name].astype(np.float16)},
        arrays | {name: np.full_like(arrays[name], np.inf)},
    ):
        with pytest.raises(ProtocolError, match=r"its (arrays|trunk)"):
            trunk.checked(wrong)
    with pytest.raises(ProtocolError, match="no trunk of a warm start"):
        Trunk.from_config({"rank": 2})


def test_a_base_model_whose_weights_cannot_be_added_to_is_refused(bert: Family) -> None:
    quantized = load_base_model(str(bert.folder), num_labels=2, quantization="int8")
    with pytest.raises(ModelError, match="are in fewer bits"):
        Trunk.of(quantized, rank=2, seed=0)


def test_parts_stay_apart_when_examples_join(bert: Family) -> None:
    every = bert.examples(42)
    trunk, rest = trunk_part(every.take(slice(40)), 0.5, client="a")
    assert (len(trunk), len(rest)) == (20, 20)
    more, _ = trunk_part(every, 0.5, client="a")
    stayed = {row.tobytes() for row in trunk.inputs} & {row.tobytes() for row in more.inputs}
    assert len(stayed) >= 18
    other, _ = trunk_part(every.take(slice(40)), 0.5, client="b")
    assert not np.array_equal(trunk.inputs, other.inputs)


def test_equal_inputs_are_on_one_side(bert: Family) -> None:
    """Else an adapter is trained on what its base model has seen before."""
    few = bert.examples(5)
    copied = few.take(np.repeat(np.arange(5), 3))
    for share in (0.2, 0.5, 0.8):
        parts = trunk_part(copied, share, client="a")
        assert all(len(part) for part in parts)
        trunk, rest = ({*part.input_digests("")} for part in parts)
        assert not trunk & rest
    one = few.take([0, 0, 0, 0])
    assert [len(part) for part in trunk_part(one, 0.5, client="a")] == [2, 2]


def test_a_round_moves_the_trunk_and_nothing_else(any_family: Family) -> None:
    task = Task(any_family.base, any_family.space(), any_family.inputs)
    trunk, before = Trunk.of(task.base, rank=2, seed=0), any_family.fresh().weights
    rounds = [
        local_round(
            task,
            trunk,
            trunk.zeros(),
            any_family.examples(24),
            training=TRAINING,
            done=0,
            seed=3,
        )
        for _ in range(2)
    ]
    assert all(np.any(array) for array in rounds[0].delta.values())
    # A round that is repeated gives the same: nothing is kept.
    for name, array in rounds[0].delta.items():
        np.testing.assert_array_equal(array, rounds[1].delta[name])
    assert any_family.fresh().weights == before
    assert torch.equal(
        logits(any_family.base, any_family.encoded(3)),
        logits(any_family.fresh(), any_family.encoded(3)),
    )


def test_joint_steps_take_what_the_personal_ones_have_not_seen(
    bert: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, drawn = Task(bert.base, bert.space(), bert.inputs), bert.examples(40)
    different = np.unique(drawn.input_digests(""), return_index=True)[1]
    examples = drawn.take(different[:24])
    trunk = Trunk.of(task.base, rank=2, seed=0)
    seen: dict[str, list[set[str]]] = {"descend": [], "_joint_steps": []}

    def watch(name: str) -> None:
        real = getattr(learning, name)

        def watched(model: Any, part: Examples, *rest: Any, **named: Any) -> Any:
            seen[name].append({*part.input_digests("")})
            return real(model, part, *rest, **named)

        monkeypatch.setattr(learning, name, watched)

    for name in seen:
        watch(name)
    held_out = replace(TRAINING, held_out=0.25)
    for seed in (0, 1):
        done = local_round(
            task, trunk, trunk.zeros(), examples, training=held_out, done=0, seed=seed
        )
        assert done.examples == 24
        assert np.isfinite(done.loss)
    for personal, joint in zip(*seen.values(), strict=True):
        assert not personal & joint
        assert len(personal | joint) == 24
        assert len(joint) == 6
    assert seen["_joint_steps"][0] != seen["_joint_steps"][1]  # others in the next round
    # Of two examples, one of each label, none can be held out.
    two = examples.take(np.unique(examples.labels, return_index=True)[1])
    held_out = replace(TRAINING, held_out=0.5)
    local_round(task, trunk, trunk.zeros(), two, training=held_out, done=0, seed=0)
    assert seen["descend"][-1] == seen["_joint_steps"][-1] == {*two.input_digests("")}


def test_settings_of_before_name_no_held_out_share() -> None:
    assert "held_out" not in TRAINING.to_config()
    assert TrunkTraining.from_config(TRAINING.to_config()) == TRAINING
    held_out = replace(TRAINING, held_out=0.5)
    assert TrunkTraining.from_config(held_out.to_config()) == held_out
    assert "held_out" not in WarmStartSettings(rounds=1).identity()
    assert WarmStartSettings(rounds=1, held_out=0.5).identity()["held_out"] == 0.5


def test_names_of_labels_are_embedded_by_the_trunk_as_it_moves(tmp_path: Path) -> None:
    source = save_sentence_encoder(tmp_path / "source", "bert")
    folder = with_label_names(source, tmp_path / "base", template="about {label}")
    base = load_base_model(str(folder))
    inputs = TextInputs.of(str(folder), max_length=12)
    task = Task(base, AdapterSpace.of(base, rank=2), inputs, ()).with_labels(NAMES)
    generator = keyed_generator("tests/warm names")
    texts = np.empty(24, dtype=object)
    texts[:] = [" ".join(generator.choice(GOOD, 4)) for _ in range(24)]
    examples = Examples(texts, generator.integers(0, 3, 24))
    trunk = Trunk.of(base, rank=2, seed=0)
    own = task.base.model.task_head.label_embeddings.clone()
    done = local_round(task, trunk, trunk.zeros(), examples, training=TRAINING, done=0, seed=0)
    assert torch.equal(task.base.model.task_head.label_embeddings, own)
    merged, _ = merge(folder, trunk, done.delta, tmp_path / "made", about={})
    moved = load_base_model(str(merged)).with_labels(NAMES)
    assert not torch.allclose(moved.model.task_head.label_embeddings, own, atol=1e-5)
    # What scenarios make of a folder that somebody names is the same base model.
    again = with_label_names(merged, tmp_path / "again", template="about {label}")
    assert load_base_model(str(again)).digest == moved.digest


def test_layers_that_run_twice_for_gradients_move_the_trunk_alike(
    any_family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, examples = any_family.fresh(), any_family.examples(12)
    task = Task(base, AdapterSpace.of(base, rank=2, last_layers=1), any_family.inputs)
    trunk = Trunk.of(base, rank=2, seed=0)
    layer = base.model.get_submodule(base.layout.layers)[0]  # type: ignore[index]
    runs: list[int] = []
    first = next(module for module in layer.modules() if isinstance(module, torch.nn.Linear))
    first.register_forward_hook(lambda *_args: runs.append(1))

    def moved() -> tuple[TrunkTensors, int]:
        runs.clear()
        found = local_round(
            task, trunk, some(trunk), examples, training=TRAINING, done=0, seed=0
        )
        return found.delta, len(runs)

    kept, once = moved()
    monkeypatch.setattr(learning, "_MOST_KEPT", 1)
    again, twice = moved()
    assert twice == once + TRAINING.steps
    for name, delta in kept.items():
        assert np.abs(delta).max() > 0
        np.testing.assert_allclose(again[name], delta, rtol=1e-4, atol=1e-6)
