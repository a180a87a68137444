"""What the frozen layers make of texts is kept, and changes no bit of a result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_text import save_tiny_backbone, tiny_texts

from fedcert.adapters import (
    AdaptedModel,
    AdapterSpace,
    FinetuneSettings,
    PrefixCache,
    Task,
    finetune,
)
from fedcert.data import Examples, TextInputs
from fedcert.models import BaseModel, load_base_model, with_task_head


@pytest.fixture(scope="module", params=["bert", "roberta", "llama"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    source = save_tiny_backbone(tmp_path_factory.mktemp("source"), request.param)
    return load_base_model(str(with_task_head(source, ["bad", "good"])), num_labels=2)


def _model(base: BaseModel, cache: PrefixCache | None) -> AdaptedModel:
    return Task(
        base,
        AdapterSpace.of(base, rank=2, last_layers=1),
        TextInputs.of(base.name, max_length=8),
    ).model(prefix_cache=cache)


def _adapter(base: BaseModel, examples: Examples, cache: PrefixCache | None) -> np.ndarray:
    return finetune(
        _model(base, cache), examples, seed=0, settings=FinetuneSettings(steps=5)
    ).vector


def test_an_adapter_has_the_same_bits_whatever_was_computed_before(base: BaseModel) -> None:
    examples, others = tiny_texts(40, seed=1), tiny_texts(60, seed=2)
    alone = _adapter(base, examples, PrefixCache())
    warm = PrefixCache()
    for earlier in (others, examples.take(slice(5, 25)), others):
        _adapter(base, earlier, warm)
    assert warm.reused > 0
    computed = warm.computed
    shared = _adapter(base, examples, warm)
    assert warm.computed - computed < len(examples) // 2
    forgetful, tiny = PrefixCache(0), PrefixCache(0.001)
    for cache in (forgetful, tiny):
        _adapter(base, others, cache)
    for found in (
        shared,
        _adapter(base, examples, forgetful),
        _adapter(base, examples, tiny),
    ):
        np.testing.assert_array_equal(found, alone)
    # Another order of the layers' sums, and no more.
    np.testing.assert_allclose(alone, _adapter(base, examples, None), atol=1e-4)


def test_logits_are_those_without_a_cache(base: BaseModel) -> None:
    spec = TextInputs.of(base.name, max_length=8).bound_to(base)
    inputs = spec.encode(tiny_texts(30).inputs)
    cached, plain = _model(base, PrefixCache()), _model(base, None)
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(3, plain.space.dimension, generator=generator)
    for _ in range(2):
        torch.testing.assert_close(
            cached.logits(cached.prepare(inputs), vectors),
            plain.logits(plain.prepare(inputs), vectors),
            atol=1e-5,
            rtol=1e-5,
        )


def _layers(log: list[int]) -> Callable[[dict[str, torch.Tensor]], torch.Tensor]:
    def layers(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        log.append(len(inputs["input_ids"]))
        return inputs["input_ids"][..., None].float().expand(-1, -1, 256)

    return layers


def _batch(*texts: list[int]) -> dict[str, torch.Tensor]:
    width = max(map(len, texts))
    ids = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts])
    return {"input_ids": ids, "attention_mask": mask}


def test_the_least_recently_used_goes_first_and_the_budget_holds() -> None:
    log: list[int] = []
    layers = _layers(log)
    cache = PrefixCache(3 * 2 * 256 * 4 / 2**20)  # three texts of two tokens
    for text in ([1, 2], [3, 4], [5, 6]):
        cache.hidden("lru", _batch(text), layers)
    cache.hidden("lru", _batch([1, 2]), layers)
    assert (cache.computed, cache.reused) == (3, 1)
    cache.hidden("lru", _batch([7, 8]), layers)  # [3, 4] has to go
    cache.hidden("lru", _batch([1, 2], [5, 6], [7, 8]), layers)
    assert cache.reused == 4
    cache.hidden("lru", _batch([3, 4]), layers)
    assert cache.computed == 5


def test_what_memory_has_no_place_for_is_on_the_disk() -> None:
    log: list[int] = []
    text = 2 * 256 * 4 / 2**20  # of two tokens
    cache = PrefixCache(text, disk_mib=3 * text)
    batches = [_batch([n, n + 1]) for n in range(1, 9, 2)]
    made = [cache.hidden("disk", batch, _layers(log)) for batch in batches]
    assert cache.computed == 4
    # The last one leaves memory for the disk, and overwrites the first there.
    for batch, hidden in zip(batches[:0:-1], made[:0:-1], strict=True):
        again = cache.hidden("disk", batch, _layers(log))
        assert hidden is not None
        assert again is not None
        assert torch.equal(again, hidden)
    assert (cache.computed, cache.reused) == (4, 3)
    cache.hidden("disk", batches[0], _layers(log))
    assert cache.computed == 5


def test_models_do_not_share_and_padding_is_zero() -> None:
    cache, log = PrefixCache(), []
    layers = _layers(log)
    batch = _batch([1, 2, 3], [4], [1, 2, 3])
    hidden = cache.hidden("one", batch, layers)
    assert hidden is not None
    assert hidden[:, :, 0].tolist() == [[1, 2, 3], [4, 0, 0], [1, 2, 3]]
    assert cache.computed == 2
    cache.hidden("two", batch, layers)
    assert cache.computed == 4


def test_texts_go_one_by_one_where_neighbors_change_bits() -> None:
    log: list[int] = []
    honest = _layers(log)

    def leaking(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        rows = torch.arange(len(inputs["input_ids"]))[:, None, None]
        return honest(inputs) + 1e-6 * rows

    cache = PrefixCache()
    batch = _batch(*([n, n + 1, n + 2, n + 3] for n in range(1, 10)))
    hidden = cache.hidden("leaking", batch, leaking)
    assert hidden is not None
    assert log[-9:] == [1] * 9
    torch.testing.assert_close(hidden[:, :, 0], batch["input_ids"].float(), atol=0, rtol=0)


@pytest.mark.parametrize(
    "inputs",
    [
        {"pixel_values": torch.zeros(2, 1, 4, 4)},
        {"input_ids": torch.ones(2, 3, dtype=torch.long)},
        _batch([1, 2]) | {"attention_mask": torch.tensor([[0, 1]])},
        _batch([1, 2]) | {"token_type_ids": torch.zeros(1, 2)},
    ],
    ids=["images", "no mask", "padding on the left", "other inputs"],
)
def test_other_inputs_are_left_alone(inputs: dict[str, torch.Tensor]) -> None:
    def never(_inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        raise AssertionError("these are not for the cache")

    assert PrefixCache().hidden("m", inputs, never) is None


def test_clients_of_one_process_share(
    tmp_path: Path, base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedcert.clients.node import Node
    from fedcert.scenarios import load_scenario
    from fedcert.settings import RunSettings

    monkeypatch.setattr(Node, "base_model", lambda _self: base)
    settings = RunSettings.from_mapping({"client": {"cache_mib": 1.0}})
    scenario = load_scenario("digits", {})
    space = AdapterSpace.of(base, rank=1, last_layers=1)
    task = Task(base, space, TextInputs.of(base.name, max_length=8))
    caches = [
        Node(name, "upstream", scenario, settings, tmp_path, None).model_of(task).prefix_cache
        for name in ("a", "b")
    ]
    assert caches[0] is caches[1]
    assert caches[0] is not None
