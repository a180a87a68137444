"""The grid that tells about replies as they come."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict

from fedcert.simulations.runners.flower_internals import LocalGrid
from fedcert.strategies.observed_grid import ObservedGrid


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
    assert len(list(replies)) == 2
    assert 0.2 <= time.monotonic() - started < 5


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
