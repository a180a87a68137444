"""What the nets of FedP2EFT and FedL2P learn from clients, and what they say to new ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import Family
from torch.nn.functional import cross_entropy

from fedcert.adapters import FinetuneSettings
from fedcert.adapters.gates import FIRST_GATE, SMALLEST_GATE
from fedcert.certificates import PosteriorSplitRecipe
from fedcert.errors import SettingsError
from fedcert.methods import FederatedSettings, FedL2P, FedP2EFT, PersonalTraining, State
from fedcert.methods.fedl2p import descended

LOCAL = FinetuneSettings(steps=4, batch_size=16)
FEDERATED = FederatedSettings(rounds=1, local=LOCAL)
PERSONAL = PersonalTraining(settings=replace(LOCAL, steps=15))


def _gated(family: Family, **options: float) -> FedP2EFT:
    settings = {"net_rounds": 6, "gate_steps": 10, "net_rate": 0.01, **options}
    method = FedP2EFT(federated=FEDERATED, personal=PERSONAL, **settings)  # type: ignore[arg-type]
    return method.fitted_to(family.base)


def _run(method: FedP2EFT | FedL2P, family: Family, clients: int = 3) -> State:
    """Go through all rounds with some clients, checking what each sends."""
    model = family.adapted()
    state, own = method.start(model.space, seed=0), [{} for _ in range(clients)]
    for number in range(1, method.rounds + 1):
        updates = []
        for client in range(clients):
            update = method.local(
                state,
                model,
                family.examples(24, seed=client),
                number=number,
                seed=client,
                own=own[client],
            )
            sent = {name: array.shape for name, array in update.tensors.items()}
            assert sent == dict(method.expects(model.space, state, number))
            assert all(array.dtype == np.float32 for array in update.tensors.values())
            own[client] = dict(update.own)
            updates.append(update)
        state = method.merged(state, updates, number)
    return state


def _net(tensors: Mapping[str, np.ndarray]) -> State:
    return {k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")}


def test_the_net_of_gates_learns_what_clients_find(bert: Family) -> None:
    """A new client of the same kind gets gates nearer to its own than a fresh net's."""
    method, model = _gated(bert), bert.adapted()
    state = _run(method, bert)
    assert np.any(state["pooled.mean"] != 0)
    prior = method.published(model.space, state)
    examples = bert.examples(24, seed=9)
    first = prior.center()
    adapter = method.learned(prior, model, examples)  # type: ignore[arg-type]
    np.testing.assert_array_equal(
        adapter,
        method.learned(prior, model, examples),  # type: ignore[arg-type]
    )
    assert np.any(adapter != first)
    condition = np.zeros(2 * method.linears, dtype=np.float32)
    fresh = method.said(method.first_net(model.space, seed=0), condition)
    said = method.said(_net(state), condition)
    own = method.own_gates(model, examples, first, np.maximum(said, SMALLEST_GATE), seed=0)
    assert np.abs(said - own).mean() < np.abs(fresh - own).mean()


def test_one_net_serves_all_budgets(bert: Family) -> None:
    method, model = _gated(bert), bert.adapted()
    prior = method.published(model.space, _run(method, bert, clients=2))
    examples, moved = bert.examples(24, seed=9), []
    for budget in (0.1, 0.5, 1.0):
        asked = replace(method, budget=budget)
        adapter = asked.learned(prior, model, examples)  # type: ignore[arg-type]
        moved.append(np.count_nonzero(adapter != prior.center()))
    assert moved[0] < moved[1] < moved[2]


def test_labels_are_not_what_the_net_reads(bert: Family) -> None:
    """Then the same gates serve, whatever labels the choosing examples have."""
    method, model = _gated(bert), bert.adapted()
    examples = bert.examples(24)
    other = replace(examples, labels=1 - examples.labels)
    state = method.start(model.space, seed=0)
    sent = [
        method.local(state, model, each, number=2, seed=0, own={}).tensors["sums"]
        for each in (examples, other)
    ]
    np.testing.assert_array_equal(*sent)


@pytest.mark.parametrize("name", ["bert", "vit", "llama"])
def test_the_gradient_through_training_is_exact(
    name: str, request: pytest.FixtureRequest
) -> None:
    """It agrees with the difference quotient of what training leads to."""
    family: Family = request.getfixturevalue(name)
    model = family.adapted()
    examples, held = family.examples(20), family.examples(10, seed=1)
    prepared = model.prepare(family.inputs.encode(examples.inputs))
    unseen = model.prepare(family.inputs.encode(held.inputs))
    labels, wanted = torch.from_numpy(examples.labels), torch.from_numpy(held.labels)
    center = np.full(model.space.dimension, 0.01)

    def after(factor: torch.Tensor, *, unrolled: bool = False) -> torch.Tensor:
        rates = 0.5 * factor * torch.ones(model.space.dimension)
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            vector = descended(
                model, prepared, labels, center, rates, steps=3, unrolled=unrolled
            )
            return cross_entropy(model.logits(unseen, vector)[0], wanted)

    factor = torch.ones((), requires_grad=True)
    [slope] = torch.autograd.grad(after(factor, unrolled=True), factor)
    width = 0.02
    quotient = (after(torch.tensor(1 + width)) - after(torch.tensor(1 - width))) / (2 * width)
    assert float(slope.detach()) == pytest.approx(float(quotient.detach()), rel=0.05, abs=1e-4)


def test_rates_lower_the_loss_on_examples_that_were_held_out(bert: Family) -> None:
    # All that are not held out: ten steps on a few each say little about one client.
    method = FedL2P(
        federated=FEDERATED,
        personal=PERSONAL,
        net_rounds=1,
        net_rate=0.01,
        descent_examples=32,
    )
    method, model = method.fitted_to(bert.base), bert.adapted()
    _, measured = method.trained_net(
        method.first_net(model.space, seed=0),
        np.zeros(2 * method.linears, dtype=np.float32),
        np.zeros(model.space.dimension),
        model,
        bert.examples(40),
        seed=0,
    )
    assert measured["loss-after"] < measured["loss-before"]


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(SettingsError, match="budget"):
        FedP2EFT(budget=0)
    with pytest.raises(SettingsError, match="net_rounds"):
        FedP2EFT(net_rounds=0)
    with pytest.raises(SettingsError, match="descent_steps"):
        FedL2P(descent_steps=0)
    with pytest.raises(SettingsError, match="descent_examples"):
        FedL2P(descent_examples=0)


def test_codes_are_finalists_that_share_delta(bert: Family) -> None:
    """Clients with other needs gather round other codes, and a new one tries each."""
    method, model = _gated(bert, codes=2), bert.adapted()
    state = _run(method, bert, clients=4)
    codes = state["net.codes"]
    assert codes.shape == (2, len(method.gates(model.space)))
    assert np.abs(codes[0] - codes[1]).max() > 1e-3
    assert np.abs(codes - FIRST_GATE).max(axis=1).min() > 1e-3  # none was left where it began
    prior, examples = method.published(model.space, state), bert.examples(24, seed=9)
    adapters = method.learned(prior, model, examples)  # type: ignore[arg-type]
    assert adapters.shape == (2, model.space.dimension)
    for code, adapter in zip(codes, adapters, strict=True):
        wanted = method.under(code.astype(np.float64), prior.center(), model, examples)
        np.testing.assert_array_equal(adapter, wanted)
    recipe = method.recipe({"delta": 0.05})
    assert isinstance(recipe, PosteriorSplitRecipe)
    assert recipe.finalists == recipe.hypotheses == 2
    with_plain = replace(method, plain=True).recipe({"delta": 0.05})
    assert isinstance(with_plain, PosteriorSplitRecipe)
    assert (with_plain.refinement, with_plain.finalists) == ("finetune+learned", 3)
    single = examples.take(np.flatnonzero(examples.labels == examples.labels[0]))
    assert method.learned(prior, model, single).shape == adapters.shape  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="codes must be 0 or 2 to 4, not 9"):
        _gated(bert, codes=9)
