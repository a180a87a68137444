"""Federated averaging: what it computes, and choosing hyper-parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from fedcert.adapters import FinetuneSettings
from fedcert.data import Examples
from fedcert.errors import SettingsError
from fedcert.methods import AdapterMethod, FedAvg, FederatedSettings, FedRep, MrMtl
from fedcert.methods.federated import local_round, round_seed, weighted_mean
from fedcert.methods.local_training import head_part
from fedcert.simulations.benchmarks.comparison import Trial, Upstream, tuned
from fedcert.simulations.benchmarks.comparison.learned import averaged, global_adapter

QUICK = FederatedSettings(
    rounds=2, clients_per_round=0, local=FinetuneSettings(steps=4, batch_size=16)
)


def _average(
    upstream: Upstream,
    settings: FederatedSettings,
    *,
    cls: type[AdapterMethod] = FedAvg,
    clients: Mapping[str, Examples] | None = None,
    seed: int = 0,
) -> np.ndarray:
    about = replace(upstream, seed=seed, clients=clients or upstream.clients)
    return averaged(cls(federated=settings), about)


def test_a_round_is_the_weighted_mean_of_what_clients_train(
    upstream: Upstream, client_of: Callable[..., Examples]
) -> None:
    clients = {"a": client_of(0, 16), "b": client_of(2, 48)}
    zero = np.zeros(upstream.dimension, dtype=np.float32)
    alone = [
        local_round(upstream.model, zero, clients[name], settings=QUICK,
            seed=round_seed(0, 1, name),
        )
        for name in "ab"
    ]  # fmt: skip
    found = _average(upstream, replace(QUICK, rounds=1), clients=clients)
    np.testing.assert_allclose(found, alone[0] / 4 + alone[1] * 3 / 4, atol=1e-6)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3


def test_a_run_repeats_and_rounds_count(upstream: Upstream) -> None:
    few = replace(QUICK, clients_per_round=3)
    first = _average(upstream, few)
    np.testing.assert_array_equal(_average(upstream, few), first)
    assert not np.array_equal(_average(upstream, few, seed=1), first)
    assert not np.array_equal(_average(upstream, replace(few, rounds=3)), first)


def test_averaging_learns_what_clients_agree_on(upstream: Upstream) -> None:
    agreeing = {name: upstream.clients[name] for name in sorted(upstream.clients)[::2]}
    settings = replace(QUICK, rounds=3, local=upstream.training)
    vector = _average(upstream, settings, clients=agreeing)
    for examples in agreeing.values():
        wrong = upstream.scorer.score(vector[None], examples).wrong
        assert wrong.mean() < 0.3


def test_fedrep_shares_no_head(upstream: Upstream) -> None:
    vector = _average(upstream, replace(QUICK, head_steps=4), cls=FedRep)
    assert not vector[head_part(upstream.model.space)].any()
    assert vector.any()


def test_methods_that_average_in_another_way_are_not_taken_for_fedavg(
    upstream: Upstream,
) -> None:
    settings = replace(QUICK, proximal_mu=1.0)
    alike, other = (
        global_adapter(upstream, cls(federated=settings)) for cls in (FedAvg, MrMtl)
    )
    assert np.abs(alike - other).max() > 1e-3
    np.testing.assert_array_equal(other, _average(upstream, settings, cls=MrMtl))


def test_a_heavier_proximal_term_moves_the_average_less(upstream: Upstream) -> None:
    free, held = (
        _average(upstream, replace(QUICK, proximal_mu=proximal_mu))
        for proximal_mu in (0.0, 100.0)
    )
    assert np.linalg.norm(held) < 0.7 * np.linalg.norm(free)


def test_a_mean_of_weights() -> None:
    vectors = [np.array([0.0, 2.0], np.float32), np.array([4.0, 0.0], np.float32)]
    found = weighted_mean(vectors, [3, 1])
    np.testing.assert_array_equal(found, [1.0, 1.5])
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    "change",
    [{"rounds": 0}, {"clients_per_round": -1}, {"proximal_mu": -0.1}, {"head_steps": -1}],
)
def test_settings_out_of_range_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        replace(QUICK, **change)


def test_settings_travel_as_json() -> None:
    settings = replace(QUICK, proximal_mu=0.25)
    assert FederatedSettings.from_config(settings.to_config()) == settings
    assert settings.to_config()["pull"] == 0.25  # as in records and caches
    with pytest.raises(SettingsError, match="no settings of federated training"):
        FederatedSettings.from_config({"rounds": 3})
    with pytest.raises(SettingsError, match="no settings of federated training"):
        FederatedSettings.from_config(settings.to_config() | {"epochs": 3})


def test_the_lowest_mean_certificate_wins_at_each_size() -> None:
    trials = [
        Trial(0, 16, 0.5), Trial(0, 16, 0.7), Trial(1, 16, 0.4), Trial(1, 16, 0.6),
        Trial(0, 32, 0.2), Trial(0, 32, 0.4), Trial(1, 32, 0.4), Trial(1, 32, 0.6),
    ]  # fmt: skip
    assert tuned(trials, [16, 32]) == {16: 1, 32: 0}


def test_ties_go_to_the_first_and_partial_trials_do_not_count() -> None:
    trials = [
        Trial(1, 16, 0.5), Trial(0, 16, 0.5), Trial(1, 16, 0.5), Trial(0, 16, 0.5),
        Trial(2, 16, 0.1),
    ]  # fmt: skip
    assert tuned(trials, [16]) == {16: 0}


def test_sizes_that_no_tuning_client_reaches_take_the_next_smaller_choice() -> None:
    assert tuned([Trial(1, 16, 0.5)], [16, 64]) == {16: 1, 64: 1}
    few = [Trial(v, 16, 0.5 - 0.1 * v) for v in (0, 1) for _ in range(3)]
    few += [Trial(v, 32, 0.3 + 0.1 * v) for v in (0, 1) for _ in range(2)]
    assert tuned(few, [16, 32]) == {16: 1, 32: 1}
    assert tuned([*few, Trial(0, 32, 0.3), Trial(1, 32, 0.4)], [16, 32]) == {16: 1, 32: 0}
    with pytest.raises(SettingsError, match="no tuning client has 8 examples"):
        tuned([Trial(1, 16, 0.5)], [8, 16])
