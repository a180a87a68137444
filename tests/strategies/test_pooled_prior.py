"""The strategy under Flower's own ``strategy.start``, with clients that all do their part."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from flwr.app import ArrayRecord, Message
from simulations.federation import CLIENTS, NEW, UPSTREAM, Federation, tiny_settings

from fedcert.bundle import Bundle
from fedcert.certificates import verify_record
from fedcert.errors import PoolError
from fedcert.messages import CERTIFY, HELLO, TRAIN
from fedcert.simulations.runners.flower_internals import LocalGrid
from fedcert.strategies.observed_grid import ObservedGrid
from fedcert.strategies.pooled_prior import PooledPrior
from fedcert.verification import check_bundle

on_both_grids = pytest.mark.parametrize("observed", [False, True], ids=["plain", "observed"])


@on_both_grids
def test_everyone_is_asked_once_and_every_new_client_is_certified(
    federation: Federation, undisturbed: PooledPrior, observed: bool
) -> None:
    strategy = federation.start(observed=observed)
    assert strategy.failures == []
    assert [entry.client for entry in federation.pool().entries()] == CLIENTS[:UPSTREAM]
    assert federation.clients.count() == {HELLO: UPSTREAM + NEW, TRAIN: UPSTREAM, CERTIFY: NEW}
    assert strategy.bundle is not None
    assert undisturbed.bundle is not None
    assert strategy.bundle.digest == undisturbed.bundle.digest
    assert strategy.bundle.notes["pool"] == UPSTREAM
    assert strategy.certificates == undisturbed.certificates


def test_certificates_follow_from_the_bundle(undisturbed: PooledPrior) -> None:
    assert undisturbed.bundle is not None
    assert sorted(undisturbed.certificates) == CLIENTS[UPSTREAM:]
    for client, certificate in undisturbed.certificates.items():
        report = verify_record(certificate).extended(
            check_bundle(certificate, undisturbed.bundle)
        )
        assert report.passed, report.failures
        assert certificate.client == client
        assert certificate.nonvacuous


def test_traffic_and_measurements_are_kept_by_client(undisturbed: PooledPrior) -> None:
    traffic = undisturbed.traffic
    assert sorted(traffic.up) == sorted(traffic.down) == CLIENTS
    floats = 4 * 42  # d = 42: two projections of rank 2, and the head
    assert all(floats < traffic.up[client] < 50 * floats for client in CLIENTS[:UPSTREAM])
    assert undisturbed.bundle is not None
    tensors = sum(array.nbytes for array in undisturbed.bundle.tensors().values())
    assert all(traffic.down[client] > tensors for client in CLIENTS[UPSTREAM:])
    measured = undisturbed.measurements
    assert sorted(measured) == CLIENTS
    assert measured[CLIENTS[0]]["num-examples"] == 48
    assert {"seconds", "test-error", "num-test-examples"} <= measured[CLIENTS[-1]].keys()


@on_both_grids
def test_rounds_of_a_few_clients_make_the_same_bundle(
    tmp_path: Path, undisturbed: PooledPrior, observed: bool
) -> None:
    settings = tiny_settings(server__clients_per_round=5)
    federation = Federation(tmp_path / "run", settings)
    strategy = federation.strategy()
    assert strategy.rounds_needed(federation.grid) == 3
    asked: list[list[str]] = []

    def counted(*args: Any, **kwargs: Any) -> Iterable[Message]:
        before = len(federation.clients.asked)
        replies = list(LocalGrid.send_and_receive(federation.grid, *args, **kwargs))
        asked.append([client for _, client in federation.clients.asked[before:]])
        return replies

    federation.grid.send_and_receive = counted  # type: ignore[method-assign]
    grid = ObservedGrid(federation.grid, strategy.receive) if observed else federation.grid
    strategy.start(grid, ArrayRecord(), num_rounds=3, timeout=60)
    assert federation.clients.asked[-NEW - UPSTREAM : -NEW] == [
        (TRAIN, client) for client in CLIENTS[:UPSTREAM]
    ]
    if not observed:
        # Training and certification of three rounds; no bundle, no certification.
        expected = [CLIENTS[0:5], [], CLIENTS[5:10], [], CLIENTS[10:14], CLIENTS[14:]]
        assert asked == expected
    assert strategy.bundle is not None
    assert undisturbed.bundle is not None
    assert strategy.bundle.digest == undisturbed.bundle.digest


def test_more_rounds_than_needed_ask_nobody_again(federation: Federation) -> None:
    strategy = federation.strategy()
    result = strategy.start(federation.grid, ArrayRecord(), num_rounds=4, timeout=60)
    assert federation.clients.count() == {HELLO: UPSTREAM + NEW, TRAIN: UPSTREAM, CERTIFY: NEW}
    assert strategy.bundle is not None
    assert set(result.arrays) == set(strategy.bundle.tensors())
    assert result.train_metrics_clientapp[1] == {"pooled": UPSTREAM, "failed": 0}
    assert result.evaluate_metrics_clientapp[4]["certificates"] == NEW


@on_both_grids
def test_a_second_run_asks_no_upstream_client_again(
    federation: Federation, undisturbed: PooledPrior, observed: bool
) -> None:
    federation.start(observed=observed)
    again = Federation(federation.output)
    strategy = again.start(observed=observed)
    assert again.clients.count() == {HELLO: UPSTREAM + NEW, CERTIFY: NEW}
    assert strategy.certificates == undisturbed.certificates


def _power_cut(_message: Message) -> NoReturn:
    raise KeyboardInterrupt


def _lost_connection(grid: LocalGrid, after: int) -> Callable[..., Iterable[Message]]:
    pulled = 0

    def pull(message_ids: Iterable[str]) -> Iterable[Message]:
        nonlocal pulled
        if pulled == after:
            raise ConnectionError("the SuperLink is gone")
        pulled += 1
        return LocalGrid.pull_messages(grid, message_ids)

    return pull


def test_uploads_before_a_crash_are_kept_and_asked_for_no_more(
    federation: Federation, undisturbed: PooledPrior
) -> None:
    federation.on(TRAIN, CLIENTS[6], _power_cut)
    with pytest.raises(KeyboardInterrupt):
        federation.start()
    _finishes_as_if_nothing_had_happened(federation, undisturbed, kept=6)


def test_uploads_before_a_lost_connection_are_kept(
    federation: Federation, undisturbed: PooledPrior
) -> None:
    after = UPSTREAM + NEW + 4  # everyone has said hello, and four have trained
    grid = federation.grid
    grid.pull_messages = _lost_connection(grid, after)  # type: ignore[method-assign]
    with pytest.raises(ConnectionError, match="the SuperLink is gone"):
        federation.start()
    _finishes_as_if_nothing_had_happened(federation, undisturbed, kept=4)


def test_the_plain_grid_keeps_the_rounds_before_a_crash(
    tmp_path: Path, undisturbed: PooledPrior
) -> None:
    # Flower's grid tells nothing before a round is over: only ObservedGrid saves the rest.
    settings = tiny_settings(server__clients_per_round=5)
    federation = Federation(tmp_path / "run", settings)
    federation.on(TRAIN, CLIENTS[6], _power_cut)
    with pytest.raises(KeyboardInterrupt):
        federation.start(observed=False)
    _finishes_as_if_nothing_had_happened(federation, undisturbed, kept=5)


def test_a_crash_during_certification_costs_no_upload(
    federation: Federation, undisturbed: PooledPrior
) -> None:
    federation.on(CERTIFY, CLIENTS[-1], _power_cut)
    with pytest.raises(KeyboardInterrupt):
        federation.start()
    _finishes_as_if_nothing_had_happened(federation, undisturbed, kept=UPSTREAM)


def _finishes_as_if_nothing_had_happened(
    crashed: Federation, undisturbed: PooledPrior, *, kept: int
) -> None:
    assert [entry.client for entry in crashed.pool().entries()] == CLIENTS[:kept]
    again = Federation(crashed.output, crashed.settings)
    strategy = again.start()
    assert again.clients.count()[TRAIN] == UPSTREAM - kept
    assert strategy.failures == []
    assert strategy.bundle is not None
    assert undisturbed.bundle is not None
    assert strategy.bundle.prior.digest == undisturbed.bundle.prior.digest
    assert strategy.certificates == undisturbed.certificates


def test_the_prior_is_fitted_once_even_if_no_new_client_is_there(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "run", nodes=UPSTREAM)
    fits: list[Bundle] = []
    original = federation.fit
    federation.fit = lambda pool: fits.append(original(pool)) or fits[-1]  # type: ignore
    strategy = federation.strategy()
    strategy.start(federation.grid, ArrayRecord(), num_rounds=2, timeout=60)
    assert len(fits) == 1
    assert strategy.bundle is fits[0]
    assert strategy.certificates == {}


def test_a_pool_of_another_space_is_not_touched(federation: Federation) -> None:
    federation.start()
    other = Federation(federation.output, tiny_settings(adapter__rank=3))
    with pytest.raises(PoolError, match="belongs to another adapter space"):
        other.start()
    assert len(federation.pool()) == UPSTREAM
