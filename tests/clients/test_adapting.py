"""Clients with LoRA adapters of their own: trained at a rank, or brought as a PEFT folder."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from extending.blocks import blocks
from flwr.app import Context, RecordDict
from peft import LoraConfig, get_peft_model
from simulations.federation import CLIENTS, NEW, UPSTREAM, Federation, tiny_settings

from fedcert.adapters import AdaptedModel, project, read_peft_adapter
from fedcert.bundles import Bundle
from fedcert.clients.adapting import own_adapter
from fedcert.clients.client_app import make_client_app
from fedcert.clients.node import Node, node_of
from fedcert.data.examples import Examples
from fedcert.errors import AdapterError
from fedcert.messages import AdapterRequest
from fedcert.simulations.benchmarks.federations import Federation as Benchmark
from fedcert.simulations.benchmarks.prior_mixed import mixed_pool
from fedcert.simulations.runners.flower_internals import LocalGrid

MakeNode = Callable[..., Node]


@pytest.fixture
def make_node(tmp_path: Path) -> MakeNode:
    def make(index: int, *, ranks: str = "", **config: Any) -> Node:
        settings = tiny_settings(training__lora_ranks=ranks)
        context = Context(1, 2, {"partition-id": index} | config, RecordDict(), {})
        return node_of(context, settings, tmp_path)

    return make


def _peft_folder(federation: Federation, folder: Path, rank: int = 3) -> Path:
    names = [target.name for target in federation.space.targets]
    config = LoraConfig(r=rank, target_modules=names, modules_to_save=["classifier"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = get_peft_model(deepcopy(federation.base.model), config)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = 0.1 * torch.randn(parameter.shape)
    model.save_pretrained(folder)
    return folder


def test_ranks_are_taken_in_turn_by_upstream_clients(make_node: MakeNode) -> None:
    ranks = [make_node(index, ranks="2,1,3").lora_rank for index in range(5)]
    assert ranks == [2, 1, 3, 2, 1]
    assert make_node(UPSTREAM, ranks="2,1,3").lora_rank is None
    assert make_node(0).lora_rank is None


def test_a_brought_adapter_is_projected_and_its_examples_are_spent(
    make_node: MakeNode, federation: Federation, tmp_path: Path
) -> None:
    folder = _peft_folder(federation, tmp_path / "mine")
    node = make_node(0, ranks="2", **{"adapter-path": str(folder)})
    request = AdapterRequest({}, asdict(tiny_settings().finetune_settings()), seed=0)
    own = own_adapter(request, federation.space, node, purpose="training an upload")
    expected = project(federation.space, read_peft_adapter(folder, head_module="classifier"))
    np.testing.assert_array_equal(own.vector, expected.vector.astype(np.float32))
    assert own.measured["residual"] == expected.residual**2
    assert own.measured["loss"] > 0
    examples = node.scenario.training_examples(node.client)
    assert set(node.state().spent.purposes(examples)) == {"training an upload"}


def _halving(model: AdaptedModel, examples: Examples, **_: Any) -> npt.NDArray[np.float32]:
    return np.full(model.space.dimension, 0.5, dtype=np.float32)


def test_a_loop_of_ones_own_trains_and_its_examples_are_spent(
    make_node: MakeNode, federation: Federation
) -> None:
    node = replace(make_node(0, ranks="2"), training=_halving)
    request = AdapterRequest({}, asdict(tiny_settings().finetune_settings()), seed=0)
    own = own_adapter(request, federation.space, node, purpose="training an upload")
    assert own.vector.tolist() == [0.5] * federation.space.dimension
    assert own.measured["loss"] > 0
    examples = node.scenario.training_examples(node.client)
    assert set(node.state().spent.purposes(examples)) == {"training an upload"}
    assert node.training_identity() == {"loop": f"{__name__}._halving"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda size: np.full(size + 1, 0.5), "vector of"),
        (lambda size: np.zeros(size, dtype=int), "vector of"),
        (lambda size: np.full(size, np.nan), "not finite"),
    ],
)
def test_what_a_loop_returns_must_be_an_adapter(
    make: Callable[[int], Any], message: str, make_node: MakeNode, federation: Federation
) -> None:
    def loop(model: AdaptedModel, examples: Examples, **_: Any) -> Any:
        return make(model.space.dimension)

    node = replace(make_node(0), training=loop)
    request = AdapterRequest({}, asdict(tiny_settings().finetune_settings()), seed=0)
    with pytest.raises(AdapterError, match=message):
        own_adapter(request, federation.space, node, purpose="training an upload")


def test_the_loop_of_the_page_serves_a_federation(tmp_path: Path) -> None:
    page: dict[str, Any] = {}
    exec(blocks("own.md", "run")["loop"], page)
    federation = Federation(tmp_path / "run")
    app = make_client_app(federation.settings, federation.output, training=page["training"])
    federation.grid = LocalGrid(app, nodes=federation.nodes)
    outcome = federation.serve()
    assert outcome.strategy.failures == []
    assert len(outcome.strategy.certificates) == NEW
    ordinary = Federation(tmp_path / "other")
    ordinary.serve()
    assert not np.allclose(federation.pool().matrix(), ordinary.pool().matrix())


def test_another_adapter_or_rank_is_another_training(
    make_node: MakeNode, federation: Federation, tmp_path: Path
) -> None:
    folders = [_peft_folder(federation, tmp_path / str(rank), rank) for rank in (2, 3)]
    nodes = [make_node(0, **{"adapter-path": str(folder)}) for folder in folders]
    nodes += [make_node(0), make_node(0, ranks="2"), make_node(0, ranks="1")]
    identities = [str(node.training_identity()) for node in nodes]
    assert len(set(identities)) == len(identities)


def test_a_missing_adapter_folder_is_said(
    make_node: MakeNode, federation: Federation, tmp_path: Path
) -> None:
    node = make_node(0, **{"adapter-path": str(tmp_path / "nowhere")})
    request = AdapterRequest({}, asdict(tiny_settings().finetune_settings()), seed=0)
    with pytest.raises(AdapterError, match="nowhere"):
        own_adapter(request, federation.space, node, purpose="training an upload")


def test_clients_of_different_ranks_share_a_pool(tmp_path: Path) -> None:
    settings = tiny_settings(training__lora_ranks=[1, 2])
    federation = Federation(tmp_path / "run", settings)
    outcome = federation.serve()
    assert outcome.strategy.failures == []
    assert len(outcome.strategy.certificates) == NEW
    residuals = {entry.client: entry.residual for entry in federation.pool().entries()}
    assert set(residuals) == set(CLIENTS[:UPSTREAM])
    assert all(0 < residual < 1 for residual in residuals.values())
    notes = Bundle.load(federation.output / "bundle").notes
    assert notes["projected_uploads"] == UPSTREAM
    assert notes["residual_worst"] == pytest.approx(max(residuals.values()), abs=1e-6)
    assert notes["residual_mean"] == pytest.approx(np.mean([*residuals.values()]), abs=1e-6)


def test_the_benchmark_trains_what_a_run_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_settings(training__lora_ranks="1,2")
    federation = Federation(tmp_path / "run", settings)
    federation.serve()
    monkeypatch.setenv("FEDCERT_CACHE", str(tmp_path / "cache"))
    pool, lost = mixed_pool(Benchmark(settings), ranks=(1, 2))
    np.testing.assert_allclose(pool, federation.pool().matrix(), atol=1e-6)
    entries = federation.pool().entries()
    np.testing.assert_allclose(lost, [entry.residual for entry in entries], atol=1e-6)
