"""Gates switch parts of an adapter's change, and are folded into it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import Family

from fedcert.adapters import FinetuneSettings
from fedcert.adapters.gated_training import SparseSettings, finetune_gated, sparse_gates
from fedcert.adapters.gates import FIRST_GATE, SMALLEST_GATE, Gates

SETTINGS = FinetuneSettings(steps=40, batch_size=16)


def _changed(gates: Gates, switched: torch.Tensor) -> dict[str, torch.Tensor]:
    trained = [torch.ones_like(t, requires_grad=True) for t in gates.start()]
    return gates.space.split(gates.change(trained, switched)[0].detach())


def test_a_gate_multiplies_one_column_of_r(bert: Family) -> None:
    gates = Gates(bert.space())
    rank = gates.space.rank
    assert len(gates) == len(gates.names)
    switched = torch.zeros(len(gates))
    switched[rank + 1] = 0.5  # the second target's second direction
    parts = _changed(gates, switched)
    second = f"{gates.space.targets[1].name}.R"
    assert gates.names[rank + 1] == f"{second}[:, 1]"
    wanted = torch.zeros(rank, rank)
    wanted[:, 1] = 0.5
    torch.testing.assert_close(parts.pop(second), wanted)
    assert not any(part.any() for part in parts.values())


def test_the_head_changes_by_a_product_of_low_rank(bert: Family) -> None:
    gates = Gates(bert.space(), head_rank=1)
    parts = _changed(gates, torch.ones(len(gates)))
    weight = next(part for name, part in parts.items() if part.dim() == 2 and ".R" not in name)
    assert torch.linalg.matrix_rank(weight) == 1


def test_gates_are_ranked_before_they_are_clamped(bert: Family) -> None:
    """What a net leaves below zero is still better or worse."""
    gates = Gates(bert.space())
    values = -np.linspace(1, 2, len(gates))
    values[3] = -0.5
    assert np.flatnonzero(gates.kept(values, 2)).tolist() == [0, 3]
    values[5] = 2.0
    kept = gates.kept(values, 2)
    assert np.flatnonzero(kept).tolist() == [3, 5]
    assert kept[3] == SMALLEST_GATE
    assert kept[5] == 2.0


def test_gates_that_are_off_leave_their_part_where_it_was(bert: Family) -> None:
    model, examples = bert.adapted(), bert.examples(30)
    gates = Gates(model.space)
    center = np.linspace(-0.1, 0.1, model.space.dimension)
    switched = gates.leading(3)
    moved = finetune_gated(model, examples, center, gates, switched=switched, settings=SETTINGS)
    again = finetune_gated(model, examples, center, gates, switched=switched, settings=SETTINGS)
    np.testing.assert_array_equal(moved, again)
    on = gates.change(
        [torch.ones_like(t) for t in gates.start()], torch.from_numpy(switched).float()
    )[0]
    off = (on == 0).numpy()
    assert np.any(moved != center)
    np.testing.assert_array_equal(moved[off], center[off])


def test_a_client_finds_gates_that_it_needs(bert: Family) -> None:
    """From gates that are nearly shut those that help the loss open; others need not."""
    model, examples = bert.adapted(), bert.examples(40)
    gates = Gates(model.space)
    found = sparse_gates(
        model,
        examples,
        np.zeros(model.space.dimension),
        gates,
        start=np.full(len(gates), FIRST_GATE),
        seed=0,
        settings=SETTINGS,
        sparse=SparseSettings(),
    )
    assert found.shape == (len(gates),)
    assert found.max() > 1.5 * FIRST_GATE
    shut = sparse_gates(
        model,
        examples,
        np.zeros(model.space.dimension),
        gates,
        start=np.full(len(gates), FIRST_GATE),
        seed=0,
        settings=SETTINGS,
        sparse=SparseSettings(gate_penalty=1e3),
    )
    assert np.mean(np.maximum(shut, 0)) < np.mean(np.maximum(found, 0))


def test_gates_open_as_far_as_they_lower_the_loss(bert: Family) -> None:
    """Where the client's start has solved the task, none has a reason to open."""
    model, examples = bert.adapted(), bert.examples(40)
    gates = Gates(model.space)
    untrained = np.zeros(model.space.dimension)
    everything = np.ones(len(gates))
    solved = finetune_gated(
        model,
        examples,
        untrained,
        gates,
        switched=everything,
        settings=FinetuneSettings(steps=200),
    )
    opened = [
        sparse_gates(
            model,
            examples,
            center,
            gates,
            start=np.full(len(gates), FIRST_GATE),
            seed=0,
            settings=SETTINGS,
            sparse=SparseSettings(size_penalty=0.0, gate_penalty=0.0),
        ).max()
        - FIRST_GATE
        for center in (untrained, solved)
    ]
    assert opened[1] < opened[0] / 4


def test_a_head_rank_is_positive(bert: Family) -> None:
    with pytest.raises(Exception, match="head_rank"):
        Gates(bert.space(), head_rank=0)
