"""The grid that tells about replies as they come."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any
from unittest.mock import Mock

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.superlink.grid.http_grid import HttpGrid

from fedcert.simulations.runners.flower_internals import LocalGrid
from fedcert.strategies import observed_grid
from fedcert.strategies.observed_grid import ObservedGrid
from fedcert.strategies.roster import call_roll


def _echo(message: Message, _context: Context) -> Message:
    return Message(message.content, reply_to=message)


def _messages(count: int) -> list[Message]:
    return [
        Message(RecordDict(), dst_node_id=100 + index, message_type="query.echo")
        for index in range(count)
    ]


class Clumsy(LocalGrid):
    """Gives the replies of a few nodes late, or never, and cannot send to others."""

    def __init__(self, *, nodes: int, silent: int = 0, unsent: int = 0) -> None:
        super().__init__(_echo, nodes=nodes)
        self._silent, self._unsent = silent, unsent

    def push_messages(self, messages: Iterable[Message]) -> Any:
        ids = list(super().push_messages(messages))
        return [None] * self._unsent + ids[self._unsent :]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        wanted = sorted(message_ids, key=int)
        return super().pull_messages([i for i in wanted if int(i) > self._silent])


def test_each_reply_is_told_before_the_next_one_is_waited_for() -> None:
    told: list[int] = []
    sizes: list[int] = []

    def echo(message: Message, context: Context) -> Message:
        sizes.append(len(told))
        return _echo(message, context)

    grid = LocalGrid(echo, nodes=4)
    observed = ObservedGrid(grid, lambda reply: told.append(reply.metadata.src_node_id))
    replies = list(observed.send_and_receive(_messages(4)))
    assert told == [reply.metadata.src_node_id for reply in replies]
    assert sorted(told) == [100, 101, 102, 103]
    assert sizes == [0, 1, 2, 3]


def test_it_stops_waiting_when_time_is_up() -> None:
    started = time.monotonic()
    replies = ObservedGrid(Clumsy(nodes=3, silent=1), lambda _reply: None).send_and_receive(
        _messages(3), timeout=0.2
    )
    assert len(list(replies)) == 2  # otherwise it would hang, or miss one
    assert time.monotonic() - started >= 0.2


def test_a_message_that_cannot_be_sent_is_not_waited_for() -> None:
    grid = ObservedGrid(Clumsy(nodes=3, unsent=2), lambda _reply: None)
    assert len(list(grid.send_and_receive(_messages(3)))) == 1  # no timeout: would hang


def test_nothing_to_send_needs_no_waiting() -> None:
    grid = ObservedGrid(Clumsy(nodes=1), lambda _reply: None)
    assert list(grid.send_and_receive([])) == []


def test_the_rest_is_passed_on() -> None:
    inner = LocalGrid(_echo, nodes=2)
    grid = ObservedGrid(inner, lambda _reply: None)
    assert grid.get_node_ids() == [100, 101]
    assert grid.run is None
    grid.set_run(None)
    ids = list(grid.push_messages(_messages(2)))
    assert len(list(grid.pull_messages(ids))) == 1
    with pytest.raises(NotImplementedError, match=r"flwr\.app\.Message"):
        grid.create_message()


class Losing(LocalGrid):
    """A node that has got its message leaves, or is started again, and never answers."""

    def __init__(self, becomes: NodeInfo | None, *, says: bool = True) -> None:
        super().__init__(_echo, nodes=2)
        self._becomes, self._says, self._pushed = becomes, says, False

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self._pushed = True
        return super().push_messages(messages)

    def get_nodes(self) -> Iterable[NodeInfo]:
        well = [
            NodeInfo(node_id=node, status="online", last_activated_at="2026-11-01T10:00:00")
            for node in (100, 101)
        ]
        changed = [well[1]] if self._becomes is None else [self._becomes, well[1]]
        return changed if self._pushed else well

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        if not self._says:
            return super().pull_messages([i for i in message_ids if i != "1"])
        return super().pull_messages(message_ids)


RESTARTED = NodeInfo(node_id=100, status="online", last_activated_at="2026-11-01T10:05:00")
OFFLINE = NodeInfo(node_id=100, status="offline", last_activated_at="2026-11-01T10:00:00")
FALSE_CLOCK = NodeInfo(
    node_id=100, status="online", last_activated_at="2026-11-01T10:00:00", online_until=1.0
)


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observed_grid, "_BETWEEN_LOOKS", 0.0)


@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize(
    ("becomes", "why"),
    [
        (None, "gone offline"),
        (OFFLINE, "gone offline"),
        (RESTARTED, "started again"),
    ],
    ids=["gone", "offline", "restarted"],
)
def test_a_message_whose_node_is_lost_is_given_up(becomes: NodeInfo | None, why: str) -> None:
    told: list[Message] = []
    grid = ObservedGrid(Losing(becomes, says=False), told.append)
    replies = list(grid.send_and_receive(_messages(2)))  # no timeout: would hang
    assert replies == told
    (lost,) = [reply for reply in replies if reply.has_error()]
    assert lost.metadata.reply_to_message_id == "1"
    assert lost.metadata.src_node_id == 100
    assert why in lost.error.reason
    assert len(replies) == 2


@pytest.mark.usefixtures("no_pause")
def test_what_a_node_said_before_it_left_counts() -> None:
    replies = list(ObservedGrid(Losing(None)).send_and_receive(_messages(2)))
    assert len(replies) == 2
    assert not any(reply.has_error() for reply in replies)


@pytest.mark.usefixtures("no_pause")
def test_a_clock_that_differs_from_the_superlinks_loses_no_node() -> None:
    replies = ObservedGrid(Losing(FALSE_CLOCK, says=False)).send_and_receive(
        _messages(2), timeout=0.2
    )
    assert len(list(replies)) == 1


@pytest.mark.usefixtures("no_pause")
def test_a_grid_that_knows_only_ids_loses_no_node() -> None:
    inner = Clumsy(nodes=3, silent=1)
    replies = ObservedGrid(inner).send_and_receive(_messages(3), timeout=0.2)
    assert len(list(replies)) == 2


def _public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


@pytest.mark.parametrize("kind", [Grid, HttpGrid])
def test_whatever_flowers_grids_have_is_passed_on(kind: type) -> None:
    """Also what a later Flower adds, and `Grid` itself has a default for."""
    inner = Mock(spec=kind)
    grid = ObservedGrid(inner)
    assert isinstance(grid, Grid)
    passed = _public(kind) - {"send_and_receive"}
    assert {"get_node_ids", "get_nodes", "push_messages", "pull_messages"} <= passed
    for name in passed:
        assert getattr(grid, name) is getattr(inner, name), name


@pytest.mark.usefixtures("no_pause")
def test_the_roll_call_does_not_wait_for_a_node_that_leaves() -> None:
    started = time.monotonic()
    roster = call_roll(Losing(None, says=False), [100, 101], timeout=60.0)
    assert roster.failures[100] == "its node has gone offline"
    assert time.monotonic() - started < 60


class Late(LocalGrid):
    """Its nodes answer when ten minutes have passed on a clock that runs while one sleeps."""

    def __init__(self) -> None:
        super().__init__(_echo, nodes=2)
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return super().pull_messages(message_ids) if self.now >= 600 else []


@pytest.mark.parametrize(("timeout", "waits"), [(3600.0, True), (500.0, False)])
def test_the_roll_call_waits_as_long_as_the_settings_say(
    timeout: float, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = Late()
    monkeypatch.setattr(observed_grid, "time", grid)
    roster = call_roll(grid, [100, 101], timeout=timeout)
    late = [cause == "no answer in time" for cause in roster.failures.values()]
    assert late == [not waits] * 2
