"""The strategy under Flower's own ``strategy.start``, with clients that all do their part."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
from flwr.app import ArrayRecord, Error, Message
from flwr.serverapp.strategy import Strategy
from simulations.federation import (
    CLIENTS,
    NEW,
    UPSTREAM,
    Federation,
    LossyGrid,
    tiny_settings,
)

from fedcert.bundles import Bundle
from fedcert.certificates import verify_record
from fedcert.errors import PoolError
from fedcert.messages import CERTIFY, COMMIT, HELLO, TRAIN
from fedcert.simulations.runners.flower_internals import LocalGrid
from fedcert.strategies import observed_grid
from fedcert.strategies.pooled_prior import PooledPrior
from fedcert.verification import check_bundle

ALL = {HELLO: UPSTREAM + NEW, TRAIN: UPSTREAM, COMMIT: NEW, CERTIFY: NEW}
"""Messages of a whole run."""

on_both_grids = pytest.mark.parametrize("observed", [False, True], ids=["plain", "observed"])


@on_both_grids
def test_everyone_is_asked_once_and_every_new_client_is_certified(
    federation: Federation, undisturbed: PooledPrior, observed: bool
) -> None:
    strategy = federation.start(observed=observed)
    assert strategy.failures == []
    assert [entry.client for entry in federation.pool().entries()] == CLIENTS[:UPSTREAM]
    assert federation.clients.count() == ALL
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
    assert strategy.rounds_needed(federation.grid) == 4
    asked: list[list[str]] = []

    def counted(*args: Any, **kwargs: Any) -> Iterable[Message]:
        before = len(federation.clients.asked)
        replies = list(LocalGrid.send_and_receive(federation.grid, *args, **kwargs))
        asked.append([client for _, client in federation.clients.asked[before:]])
        return replies

    federation.grid.send_and_receive = counted  # type: ignore[method-assign]
    start = strategy.start if observed else partial(Strategy.start, strategy)
    start(federation.grid, ArrayRecord(), num_rounds=4, timeout=60)
    assert federation.clients.asked[UPSTREAM + NEW : -2 * NEW] == [
        (TRAIN, client) for client in CLIENTS[:UPSTREAM]
    ]
    if not observed:
        # Three rounds train; without a bundle nobody commits, without a seed nobody certifies.
        new = CLIENTS[14:]
        expected = [CLIENTS[0:5], [], CLIENTS[5:10], [], CLIENTS[10:14], new, [], new]
        assert asked == expected
    assert strategy.bundle is not None
    assert undisturbed.bundle is not None
    assert strategy.bundle.digest == undisturbed.bundle.digest


def test_more_rounds_than_needed_ask_nobody_again(federation: Federation) -> None:
    strategy = federation.strategy()
    result = strategy.start(federation.grid, ArrayRecord(), num_rounds=4, timeout=60)
    assert federation.clients.count() == ALL
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
    assert again.clients.count() == {HELLO: UPSTREAM + NEW, COMMIT: NEW, CERTIFY: NEW}
    assert [a.number for a in strategy._authority.history.attempts.values()] == [1, 1]
    assert strategy.certificates == undisturbed.certificates


def _gone(message: Message) -> Message:
    return Message(Error(5, "node unavailable"), reply_to=message)


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


def test_every_seed_ends_in_an_outcome_or_stays_open(federation: Federation) -> None:
    first, last = CLIENTS[UPSTREAM:]

    def out_of_memory(_message: Message) -> NoReturn:
        raise MemoryError("too many candidates")

    federation.on(CERTIFY, last, out_of_memory)
    strategy = federation.start()
    history = strategy._authority.history
    [done], [aborted] = history.attempts_of(first), history.attempts_of(last)
    assert done.certificate == strategy.certificates[first].digest
    assert strategy.witnesses[first].certificate == done.certificate
    assert aborted.aborted is not None
    assert "too many candidates" in aborted.aborted
    assert history.open_attempts() == []
    # The next run gives it the same seed: the commitment is the same.
    again = Federation(federation.output).start()
    [attempt] = again._authority.history.attempts_of(last)
    assert (attempt.number, attempt.certificate) == (1, again.certificates[last].digest)


class _Clock:
    """Time passes by waiting alone, however slow the machine is."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds


def test_a_client_that_never_comes_back_leaves_its_seed_open(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observed_grid, "time", _Clock())
    lost = {(CERTIFY, CLIENTS[-1])}
    federation.grid = LossyGrid(federation.clients, nodes=UPSTREAM + NEW, lost=lost)
    strategy = federation.start(timeout=60.0)
    [attempt] = strategy._authority.history.open_attempts()
    assert attempt.commitment.client == CLIENTS[-1]


def test_a_new_bundle_is_another_attempt_with_less_delta(tmp_path: Path) -> None:
    one = Federation(tmp_path / "run", nodes=UPSTREAM + NEW)
    one.on(TRAIN, CLIENTS[0], _gone)
    before = one.start().certificates
    after = Federation(one.output).start().certificates  # with the upload that was missing
    for client in CLIENTS[UPSTREAM:]:
        receipts = [run[client].protocol for run in (before, after)]
        assert [r.attempt for r in receipts if r is not None] == [1, 2]
        assert after[client].delta < before[client].delta / 10


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
