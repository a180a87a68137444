"""The adapter space: its coordinates, its identity, and its saved form."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import Family

from fedcert.adapters import AdapterSpace
from fedcert.errors import AdapterError, BundleError, ModelError
from fedcert.models.base import freeze


def test_dimension_counts_cores_and_head(family: Family) -> None:
    space = family.space(rank=3, last_layers=2)
    head = 2 * 16 if family.name == "llama" else 2 * 16 + 2
    assert space.dimension == 4 * 9 + head
    assert sum(int(np.prod(shape)) for shape in space.shapes().values()) == space.dimension


def test_the_basis_is_the_best_one_of_its_rank(family: Family) -> None:
    space = family.space(rank=3)
    for target in space.targets:
        weight = family.base.model.get_submodule(target.name).weight.double().numpy()
        up, down = space.basis[f"{target.name}.up"], space.basis[f"{target.name}.down"]
        U, S, Vh = np.linalg.svd(weight)
        np.testing.assert_allclose(up @ down, (U[:, :3] * S[:3]) @ Vh[:3], atol=1e-5)
        np.testing.assert_allclose(down @ down.T, np.eye(3), atol=1e-6)


def test_signs_are_fixed_by_the_rule(family: Family) -> None:
    """A direction and its negative are the same direction; the rule chooses one."""
    flipped = deepcopy(family.base.model)
    for module in flipped.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data *= -1
    other = AdapterSpace.of(
        freeze(flipped, name="flipped", revision="local"), rank=3, last_layers=2
    )
    space = family.space(rank=3)
    for name, array in space.basis.items():
        if name.endswith(".up"):
            peaks = array[np.abs(array).argmax(axis=0), np.arange(3)]
            assert (peaks > 0).all()
            np.testing.assert_allclose(other.basis[name], array, atol=1e-5)
        else:
            np.testing.assert_allclose(other.basis[name], -array, atol=1e-5)


def test_the_digest_survives_recomputation(family: Family) -> None:
    again = AdapterSpace.of(family.fresh(), rank=3, last_layers=2)
    assert again.digest == family.space().digest
    # Recomputed factors may differ in their last bits and are no part of it.
    moved = {name: np.nextafter(array, 9) for name, array in again.basis.items()}
    assert replace(again, basis=moved).digest == again.digest


def test_the_digest_sees_every_choice(vit: Family, bert: Family) -> None:
    of = AdapterSpace.of
    changed = deepcopy(vit.base.model)
    changed.vit.embeddings.cls_token.data[0, 0, 0] += 1e-6
    spaces = [
        of(vit.base, rank=3),
        of(vit.base, rank=2),
        of(vit.base, rank=3, last_layers=2),
        of(vit.base, rank=3, projections=["q_proj"]),
        of(vit.base, rank=3, projections=["v_proj", "q_proj"]),
        of(freeze(changed, name="vit", revision="local"), rank=3),
        of(bert.base, rank=3),
    ]
    assert len({space.digest for space in spaces}) == len(spaces)


@pytest.mark.parametrize("rank", [0, 17])
def test_a_rank_that_does_not_fit_is_refused(vit: Family, rank: int) -> None:
    with pytest.raises(AdapterError, match=rf"rank {rank} does not fit .*q_proj.*\(16, 16\)"):
        vit.space(rank=rank)


def test_layers_that_are_not_there_are_refused(vit: Family) -> None:
    with pytest.raises(ModelError, match="the last 4 layers: this model has 3"):
        vit.space(last_layers=4)
    with pytest.raises(ModelError, match="no linear module named w_q or w_v"):
        AdapterSpace.of(vit.base, rank=2, projections=["w_q", "w_v"])


def test_a_vector_of_another_length_is_refused(vit: Family) -> None:
    with pytest.raises(AdapterError, match="a vector of 9 numbers is not in this space of 70"):
        vit.space().split(torch.zeros(2, 9))


def test_the_saved_form_round_trips(family: Family) -> None:
    space = family.space()
    again = AdapterSpace.from_config(space.to_config(), dict(space.basis))
    assert again == space
    assert again.digest == space.digest


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c: c.update(coordinates="lora-xs/2"), "'lora-xs/2' are not those of this"),
        (lambda c: c.update(sign_rule="none"), "use the fedcert version that made"),
        (lambda c: c.pop("rank"), "damaged: 'rank'"),
        (lambda c: c.update(rank=4), "does not fit at"),
        (lambda c: c.update(targets=[]), "does not fit at"),
        (lambda c: c["targets"][0].pop("name"), "damaged: .*'name'"),
        (lambda c: c["targets"][0].update(in_features=15), "does not fit at .*down"),
        (lambda c: c.update(head=3), "damaged"),
    ],
)
def test_a_damaged_configuration_is_refused(
    vit: Family, change: Callable[[dict[str, Any]], object], text: str
) -> None:
    space = vit.space()
    config = deepcopy(space.to_config())
    change(config)
    with pytest.raises(BundleError, match=text):
        AdapterSpace.from_config(config, space.basis)


@pytest.mark.parametrize(
    "change",
    [
        lambda basis, name: basis.pop(name),
        lambda basis, name: basis.update(extra=basis[name]),
        lambda basis, name: basis.update({name: basis[name].T}),
        lambda basis, name: basis.update({name: basis[name][:-1]}),
    ],
    ids=["missing", "extra", "transposed", "short"],
)
def test_a_wrong_basis_is_refused(vit: Family, change: Callable[..., object]) -> None:
    space = vit.space()
    basis = dict(space.basis)
    change(basis, f"{space.targets[1].name}.up")
    with pytest.raises(BundleError, match="the basis of the adapter space does not fit at"):
        AdapterSpace.from_config(space.to_config(), basis)
