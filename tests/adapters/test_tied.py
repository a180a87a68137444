"""Tied modules share a few numbers: another way to write adapters that have an R of each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import Family

from fedcert.adapters import (
    AdaptedModel,
    AdapterSpace,
    FinetuneSettings,
    LoraUpdate,
    Task,
    adapter_tensors,
    decode,
    encode,
    finetune,
    project,
    read_peft_adapter,
    write_peft_adapter,
)
from fedcert.adapters.exported_model import exported_model
from fedcert.adapters.gated_training import SparseSettings, finetune_gated, sparse_gates
from fedcert.adapters.gates import Gates
from fedcert.errors import AdapterError, BundleError
from fedcert.randomness import keyed_generator, keyed_signs

TIED = 5


def _vectors(space: AdapterSpace, count: int = 3) -> np.ndarray:
    return keyed_generator("tied").standard_normal((count, space.dimension))


def _untied(space: AdapterSpace, vectors: np.ndarray) -> np.ndarray:
    """R of each target by its definition, a sum over fixed random matrices."""
    cores = []
    for target in space.targets:
        signs = keyed_signs("tied adapter space", target.name, count=TIED * space.rank**2)
        matrices = signs.reshape(TIED, space.rank, space.rank) / TIED**0.5
        own = np.tensordot(vectors[:, :TIED], matrices, axes=1)
        cores.append(own.reshape(len(vectors), -1))
    return np.concatenate([*cores, vectors[:, TIED:]], axis=1)


def test_numbers_of_the_head_stay(any_family: Family) -> None:
    space, plain = any_family.space(tied=TIED), any_family.space()
    assert space.untied == plain
    assert space.dimension == TIED + plain.dimension - plain.layer_numbers


@torch.no_grad()
@pytest.mark.parametrize("last_layers", [1, 3])
def test_adapters_run_as_those_with_an_r_of_each(any_family: Family, last_layers: int) -> None:
    model = any_family.adapted(last_layers=last_layers, tied=TIED)
    plain = any_family.adapted(last_layers=last_layers)
    vectors = _vectors(model.space)
    own = torch.from_numpy(_untied(model.space, vectors)).float()
    inputs = any_family.encoded(6)
    logits = model.logits(model.prepare(inputs), torch.from_numpy(vectors).float())
    wanted = plain.logits(plain.prepare(inputs), own)
    assert float((wanted - wanted[:1]).abs().max()) > 0.1
    torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=1e-5)


def test_an_export_is_that_of_an_r_of_each(family: Family, tmp_path: Path) -> None:
    space = family.space(tied=TIED)
    [vector] = _vectors(space, 1)
    tensors = adapter_tensors(space, vector)
    wanted = adapter_tensors(space.untied, _untied(space, vector[None])[0])
    assert tensors.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_allclose(tensors[name], array, atol=1e-6)
    write_peft_adapter(space, vector, tmp_path / "a", base_name="base")
    update = read_peft_adapter(tmp_path / "a", head_module=space.head_module)
    projection = project(space, update)
    np.testing.assert_allclose(projection.vector, vector, atol=1e-4)
    assert projection.residual < 1e-5


@torch.no_grad()
def test_stock_peft_gives_the_same_logits(vit: Family, tmp_path: Path) -> None:
    model = vit.adapted(tied=TIED)
    [vector] = _vectors(model.space, 1)
    write_peft_adapter(model.space, vector, tmp_path / "a", base_name="base")
    inputs = vit.encoded(6)
    ours = model.logits(model.prepare(inputs), torch.from_numpy(vector).float()[None])[0]
    stock = exported_model(vit.base, tmp_path / "a")
    torch.testing.assert_close(ours, stock(**inputs).logits, atol=1e-5, rtol=1e-5)


def test_a_projection_is_the_nearest_by_brute_force(vit: Family, tmp_path: Path) -> None:
    """Of an adapter with an R of each, what tied modules cannot hold is reported."""
    space = vit.space(tied=TIED)
    plain = space.untied
    [vector] = _vectors(plain, 1)
    write_peft_adapter(plain, vector, tmp_path / "a", base_name="base")
    projection = project(space, read_peft_adapter(tmp_path / "a", head_module="classifier"))

    def updates(one: np.ndarray) -> np.ndarray:
        cores, found = plain.split(torch.from_numpy(one)), []
        for target in plain.targets:
            up, down = (plain.basis[f"{target.name}.{side}"] for side in ("up", "down"))
            found.append((up @ cores[f"{target.name}.R"].numpy() @ down).ravel())
        return np.concatenate(found)

    wanted, units = updates(vector), np.eye(space.dimension)[:TIED]
    columns = np.stack([updates(one) for one in _untied(space, units)], axis=1)
    nearest, *_ = np.linalg.lstsq(columns, wanted, rcond=None)
    np.testing.assert_allclose(projection.vector[:TIED], nearest, atol=1e-4)
    np.testing.assert_allclose(projection.vector[TIED:], vector[plain.layer_numbers :])
    left = np.linalg.norm(wanted - columns @ nearest) / np.linalg.norm(wanted)
    assert projection.residual == pytest.approx(left, abs=1e-5)
    assert projection.residuals.keys() == {target.name for target in space.targets}


def test_a_module_that_an_update_leaves_alone_counts_as_changed(vit: Family) -> None:
    """What is shared reaches it, too."""
    space = vit.space(tied=TIED)
    [vector] = _vectors(space, 1)
    update = _as_lora(space, vector)
    first, *_ = update.factors
    fewer = replace(update, factors={k: v for k, v in update.factors.items() if k != first})
    projection = project(space, fewer)
    assert projection.residual > max(1e-3, *project(space, update).residuals.values())
    assert first not in projection.residuals


def _as_lora(space: AdapterSpace, vector: np.ndarray) -> LoraUpdate:
    tensors, factors = adapter_tensors(space, vector), {}
    for target in space.targets:
        A, B = (
            tensors[f"base_model.model.{target.name}.lora_{side}.weight"] for side in ("A", "B")
        )
        factors[target.name] = (A, B, 1.0)
    head = {t.name: tensors[f"base_model.model.{t.name}"] for t in space.head}
    return LoraUpdate(factors, head)


def test_gradients_reach_what_is_shared(any_family: Family) -> None:
    """They are those of all R, summed up by the fixed matrices."""
    model, plain = any_family.adapted(tied=TIED), any_family.adapted()
    vectors, inputs = _vectors(model.space, 2), any_family.encoded(5)
    shared = torch.from_numpy(vectors).float().requires_grad_()
    own = torch.from_numpy(_untied(model.space, vectors)).float().requires_grad_()
    for each, running in ((shared, model), (own, plain)):
        running.logits(running.prepare(inputs), each)[..., 0].sum().backward()
    assert shared.grad is not None
    assert own.grad is not None
    layers = plain.space.layer_numbers
    pattern = _untied(model.space, np.eye(TIED, model.space.dimension))[:, :layers]
    wanted = own.grad[:, :layers] @ torch.from_numpy(pattern).float().T
    torch.testing.assert_close(shared.grad[:, :TIED], wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        shared.grad[:, TIED:], own.grad[:, layers:], atol=1e-4, rtol=1e-4
    )


def test_training_after_a_search_without_gradients(vit: Family) -> None:
    """The patterns are made once, maybe where tensors cannot take part in gradients."""
    task = Task(vit.base, vit.space(rank=2, tied=TIED + 2), vit.inputs)
    model: AdaptedModel = task.model()
    with torch.inference_mode():
        prepared = model.prepare(vit.encoded(4))
        model.logits(prepared, torch.zeros(1, model.space.dimension))
    settings = FinetuneSettings(steps=2)
    assert finetune(model, vit.examples(20), seed=0, settings=settings).vector.any()


def test_tensors_on_the_wire_are_the_shared_ones(vit: Family) -> None:
    space = vit.space(tied=TIED)
    vector = _vectors(space, 1)[0].astype(np.float32)
    tensors = encode(space, vector)
    assert set(tensors) == {"tied", "classifier.weight", "classifier.bias"}
    np.testing.assert_array_equal(decode(space, tensors, space_digest=space.digest), vector)
    with pytest.raises(AdapterError, match="another adapter space"):
        decode(space.untied, tensors, space_digest=space.digest)


def test_the_space_survives_its_saved_form(family: Family) -> None:
    space = family.space(tied=TIED)
    again = AdapterSpace.from_config(space.to_config(), space.basis)
    assert again == space
    digests = {family.space(tied=tied).digest for tied in (0, 4, 5)}
    assert len(digests) == 3
    assert "tied" not in family.space().to_config()  # as older versions wrote it


@pytest.mark.parametrize("tied", [0, -1, 36, "5", True, None])
def test_a_damaged_number_is_refused(vit: Family, tied: object) -> None:
    space = vit.space(tied=TIED)
    with pytest.raises(BundleError, match="the adapter space is damaged: tied is"):
        AdapterSpace.from_config(space.to_config() | {"tied": tied}, space.basis)


def test_another_kind_of_coordinates_is_refused(vit: Family) -> None:
    """An older version knows one kind, and must not take an adapter of the other for it."""
    tied, plain = vit.space(tied=TIED).to_config(), vit.space().to_config()
    assert tied["coordinates"] != plain["coordinates"]
    for config in (plain | {"tied": TIED}, {k: v for k, v in tied.items() if k != "tied"}):
        with pytest.raises(BundleError, match="are not those of this version"):
            AdapterSpace.from_config(config, vit.space().basis)


@pytest.mark.parametrize("tied", [36, 100])
def test_tying_that_saves_nothing_is_refused(vit: Family, tied: int) -> None:
    with pytest.raises(AdapterError, match=rf"adapter.tied = {tied} .* 4 .* have 36 numbers"):
        vit.space(tied=tied)


def test_patterns_of_fewer_numbers_are_the_first_of_more(vit: Family) -> None:
    few, more = (vit.space(tied=tied).patterns() for tied in (4, 9))
    torch.testing.assert_close(few * 2, more[:4] * 3)
    assert torch.linalg.matrix_rank(more) == 9


def test_each_shared_number_has_a_gate(bert: Family) -> None:
    model, examples = bert.adapted(tied=TIED), bert.examples(30)
    gates = Gates(model.space)
    assert gates.names[:TIED] == tuple(f"tied[{i}]" for i in range(TIED))
    settings = FinetuneSettings(steps=10)
    center = np.linspace(-0.1, 0.1, model.space.dimension)
    switched = np.zeros(len(gates))
    switched[1] = 1.0
    moved = finetune_gated(model, examples, center, gates, switched=switched, settings=settings)
    assert np.flatnonzero(moved != center).tolist() == [1]
    found = sparse_gates(
        model, examples, center, gates,
        start=np.full(len(gates), 0.1), seed=0, settings=settings, sparse=SparseSettings(),
    )  # fmt: skip
    assert found.shape == (len(gates),)
    assert gates.leading(len(gates)).all()
